"""A second simulator of exits: sub-graph by sub-graph, in fractions, deciding as results arrive."""

from fractions import Fraction
from types import SimpleNamespace


class Replay:
    """One request; every sub-graph is a step, and the trunk's worker follows a fixed programme."""

    def __init__(self, costs, arrangement, sure, *, ordered=False, silent=()):
        self.costs, self.where = costs, arrangement
        self.sure, self.ordered, self.silent = sure, ordered, silent
        self.last = len(arrangement.branches)
        alone = set(arrangement.branches) <= {arrangement.trunk, None}
        self.now = Fraction(costs.request_us + (0 if alone else costs.call_us))
        self.ended, self.began, self.at_work, self.idle = {}, set(), {}, {}
        self.busy = self.waste = Fraction(0)
        self.answer = None
        self.programme = []
        for number in range(self.last + 1):
            self.programme.append(("trunk", number))
            if number < self.last and arrangement.branches[number] == arrangement.trunk:
                self.programme.append(("branch", number))

    def run(self):
        while True:
            for one in self.at_work.values():
                if one.left == 0 and not one.pieces:
                    self.ended[one.stage] = self.now
            if self.answer is None:
                self.answer = self.decide()
            for worker, one in list(self.at_work.items()):
                if one.left == 0 and (one.stage in self.ended or self.answer is not None):
                    self.idle[worker] = self.now
                    del self.at_work[worker]
                elif one.left == 0:
                    one.left = one.pieces.pop(0)
            if self.answer is None:
                self.begin()
            elif not self.at_work:
                return self
            if all(one.left for one in self.at_work.values()):
                self.step()

    def begin(self):
        for worker in {self.where.trunk, *self.where.branches} - {None} - set(self.at_work):
            stage = self.next_stage(worker)
            if stage is not None:
                self.began.add(stage)
                pieces = self.pieces(stage)
                self.at_work[worker] = SimpleNamespace(stage=stage, pieces=pieces, left=0)

    def step(self):
        """Go on until a sub-graph ends or something arrives."""
        speeds = {worker: self.speed(worker) for worker in self.at_work}
        after = [one.left / speeds[worker] for worker, one in self.at_work.items()]
        arrivals = [self.arrival(n) for n, w in enumerate(self.where.branches) if w is not None]
        after += [at - self.now for at in arrivals if at is not None and at > self.now]
        passed = min(after)
        for worker, one in self.at_work.items():
            one.left -= passed * speeds[worker]
            self.busy += passed
            self.waste += passed if self.answer is not None else 0
        self.now += passed

    def worker(self, stage):
        return self.where.trunk if stage[0] == "trunk" else self.where.branches[stage[1]]

    def pieces(self, stage):
        table = self.costs.trunk_us if stage[0] == "trunk" else self.costs.branch_us
        own = [Fraction(us) for us in table[self.worker(stage)][stage[1]]]
        return [Fraction(self.costs.start_us), *own] if own else []

    def speed(self, worker):
        product = Fraction(1)
        for other in set(self.at_work) - {worker}:
            product /= Fraction(self.costs.slowdown.get(f"{worker}|{other}", 1))
        return product

    def arrival(self, number):
        """Time at which a branch has all that it reads; None as long as that is open."""
        reads = [("trunk", number), *(("branch", other) for other in self.costs.needs[number])]
        if any(read not in self.ended for read in reads):
            return None
        found = []
        for read in reads:
            pair = f"{self.worker(read)}>{self.where.branches[number]}"
            times = self.costs.handover_us.get(pair)
            found.append(self.ended[read] + (Fraction(times[read[1]]) if times else 0))
        return max(found)

    def has_arrived(self, number):
        at = self.arrival(number)
        return at is not None and at <= self.now

    def next_stage(self, worker):
        if worker == self.where.trunk:
            stage = next((stage for stage in self.programme if stage not in self.began), None)
            late = stage is not None and stage[0] == "branch" and not self.has_arrived(stage[1])
            return None if late else stage
        own = [n for n, w in enumerate(self.where.branches) if w == worker]
        own = [n for n in own if ("branch", n) not in self.began and self.has_arrived(n)]
        return ("branch", min(own, key=lambda n: (self.arrival(n), n))) if own else None

    def decide(self):
        for number, worker in enumerate(self.where.branches):
            if worker is None or number in self.silent:
                continue
            if ("branch", number) in self.ended and number in self.sure:
                return number, self.now
            if ("branch", number) not in self.ended and self.ordered:
                return None
        return (self.last, self.now) if ("trunk", self.last) in self.ended else None
