"""Requests on the runners of all arrangements of a network, which share its workers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from layoutsel.device.cancellation import InFlight
from layoutsel.device.own_threads import FORK_WAITS_S
from layoutsel.device.stage_caller import StageCaller
from layoutsel.device.stage_worker import TensorWorker
from layoutsel.device.threads import available_cores
from layoutsel.device.turns import Turn
from layoutsel.errors import DeadlineMissed, WorkerClosed
from layoutsel.exits.arrangement import Arrangement, WorkerKind
from layoutsel.exits.batch_times import times_in
from layoutsel.exits.batching import ExitBatches
from layoutsel.exits.exit_chain import ExitChain
from layoutsel.exits.lane_chain import LaneChain, can_pair
from layoutsel.exits.lanes import Lanes, lanes_of
from layoutsel.exits.request import ExitRequest, Tensor
from layoutsel.exits.runners import RunHere, Runner, RunOnWorkers
from layoutsel.exits.trunk_here import TrunkHere, runs_here
from layoutsel.exits.verdict import AnswerRule
from layoutsel.runtime.compiled import CompiledModel
from tvm_passes.devices import DeviceId

logger = logging.getLogger(__name__)


class RunnerPool:
    """Makes the runner of each arrangement on first use.

    Arrangements of one worker run on the calling thread. Workers with equal threads and cores are
    one. After a failure, every arrangement is that of the trunk alone, with code for the host if
    the network has any.

    Parameters
    ----------
    compiled
        Compiled model, divided into trunk and branches.
    exits
        Number of exits, the final one included.
    kinds
        Workers by name.
    limit_s
        Time limit of a request on a worker, seconds.
    trunk_here
        True to run the trunk on the calling thread where :func:`runs_here` allows it.
    """

    def __init__(
        self,
        compiled: CompiledModel,
        exits: int,
        kinds: Mapping[str, WorkerKind],
        limit_s: float,
        trunk_here: bool,
    ) -> None:
        self._compiled, self._exits, self._kinds = compiled, exits, kinds
        self._limit_s, self._trunk_here = limit_s, trunk_here
        self.from_last = False
        """True to give the last cores to the trunk's worker, and earlier ones to the others."""
        self._runners: dict[tuple[Arrangement, bool], Runner] = {}
        self._callers: dict[int, StageCaller] = {}
        self._batches: dict[Arrangement, ExitBatches | None] = {}
        self._workers: dict[tuple[str, int, tuple[int, ...]], TensorWorker] = {}
        self._turn = Turn("began a request", FORK_WAITS_S)
        self._failure: BaseException | None = None
        self.has_failed = False
        """True once a worker has failed: the trunk alone answers."""
        self.is_closed = False
        """True after :meth:`close`."""

    def run(
        self,
        arrangement: Arrangement,
        rule: AnswerRule,
        inputs: Sequence[Tensor],
        *,
        deadline_s: float,
        is_traced: bool,
    ) -> ExitRequest:
        """Run a request until its answer, and again with exits off if a worker fails.

        All workers have the requests of several threads in the same order.

        Raises
        ------
        DeadlineMissed
            If there is no result at the deadline.
        WorkerClosed
            If the network is closed.
        """
        while True:  # twice at most: errors of the trunk alone are raised
            with self._turn:
                runner = self._usable(arrangement)
                request = runner.begin(rule, inputs, deadline_s=deadline_s, is_traced=is_traced)
            try:
                runner.finish(request)
            except Exception as error:
                if self.has_failed or not self._compiled.has_fallback:
                    raise
                self._failure = error  # of a device, which the calling thread has used
                continue
            if isinstance(request.error, DeadlineMissed):
                raise request.error
            if request.error is None:
                return request

    def runner(self, arrangement: Arrangement) -> Runner:
        """Return the runner of an arrangement; that of its trunk alone after a failure."""
        used = self._alone(arrangement) if self.has_failed else arrangement
        key = used, self.from_last and used.is_beside
        if key not in self._runners:
            self._runners[key] = self._made(*key)
        return self._runners[key]

    def chain(self, arrangement: Arrangement) -> ExitChain | LaneChain | None:
        """Return what answers requests on an arrangement in one call of the plugin, if possible."""
        return self.runner(arrangement).chain

    def batches(self, arrangement: Arrangement, exits: Sequence[str]) -> ExitBatches | None:
        """Return what answers several requests at once on an arrangement, if it can be batched.

        Parameters
        ----------
        arrangement
            Workers of trunk and branches.
        exits
            Names of the exits.
        """
        if arrangement not in self._batches:
            can = self._compiled.batches and not arrangement.is_beside
            found = self._batches_on(arrangement, exits) if can else None
            self._batches[arrangement] = found
        return self._batches[arrangement]

    def _batches_on(self, arrangement: Arrangement, exits: Sequence[str]) -> ExitBatches:
        """Make what answers several requests at once on an arrangement of one worker."""
        models = dict(self._compiled.batches)
        own = self._compiled.threads
        if all(model.threads == own for model in models.values()):
            models[1] = self._compiled
        times = times_in(self._compiled.header, "the compiled network")
        threads = self._kinds[arrangement.trunk].threads
        if times is not None and threads == own:
            threads = times.threads
        lanes = lanes_of(models[min(models)].stages, self._exits, arrangement)
        counts = times.counts() if times else ()
        return ExitBatches(models, self._compiled.inputs, lanes, exits, threads, counts)

    def forget_batches(self) -> None:
        """Make what answers several requests at once again on its next use."""
        self._batches.clear()

    def caller(self, arrangement: Arrangement) -> StageCaller:
        """Return what runs the stages of an arrangement's trunk on the calling thread."""
        threads = self._kinds[arrangement.trunk].threads
        if threads not in self._callers:
            self._callers[threads] = self._compiled.caller(threads=threads)
        return self._callers[threads]

    def close(self) -> None:
        """Fail the active requests, and end the workers."""
        self.is_closed = True
        self._end_workers()

    def _usable(self, arrangement: Arrangement) -> Runner:
        """Runner for the next request; that of the trunk alone once a worker has failed."""
        if self.is_closed:
            raise WorkerClosed("the multi-exit network is closed: load or compile it again")
        runner = self.runner(arrangement)
        failure = runner.failure or self._failure
        if failure is None:
            return runner
        _warn(str(failure))
        self.has_failed, self._failure = True, None
        self._end_workers()
        self._take_fallback()
        return self.runner(arrangement)

    def _take_fallback(self) -> None:
        """Go on with the code for the host alone, if the network has it: a device may be lost."""
        fallback = self._compiled.fallback
        if fallback is not None:
            self._compiled = fallback
            self._runners.clear()
            self._callers.clear()

    def _end_workers(self) -> None:
        for runner in list(self._runners.values()):
            runner.close()

    def _made(self, arrangement: Arrangement, from_last: bool) -> Runner:
        lanes = lanes_of(self._compiled.stages, self._exits, arrangement)
        if len(lanes.lanes) == 1:
            return RunHere(lanes, self.caller(arrangement))
        kinds = [self._kinds[lane.worker] for lane in lanes.lanes]
        cores = _cores(kinds, available_cores()[:: -1 if from_last else 1])
        if cores is None:
            needed = " and ".join(f"{kind.cores}" for kind in kinds)
            _warn(f"the workers take {needed} cores; this process has {len(available_cores())}")
            return self.runner(self._alone(arrangement))
        workers = [
            self._worker(number, kind, own)
            for number, (kind, own) in enumerate(zip(kinds, cores, strict=True))
        ]
        if not self._trunk_here or not runs_here(lanes, kinds[0]):
            return RunOnWorkers(lanes, workers, self._limit_s)
        trunk = TrunkHere(lanes, self._compiled.caller(is_watched=True), cores[0])
        can = can_pair(lanes) and not self._compiled.uses_devices
        chain = self._pair(lanes, kinds[1], cores, arrangement.in_sequence) if can else None
        return RunOnWorkers(lanes, workers, self._limit_s, trunk, chain)

    def _pair(
        self,
        lanes: Lanes,
        branches: WorkerKind,
        cores: Sequence[Sequence[int]],
        in_sequence: Arrangement,
    ) -> LaneChain:
        sequence = self.chain(in_sequence)
        assert not isinstance(sequence, LaneChain)
        trunk = self._compiled.caller(is_watched=True)
        caller = self._compiled.caller(threads=branches.threads, is_watched=True)
        return LaneChain(lanes, trunk, caller, (cores[0], cores[1]), self._limit_s, sequence)

    def _worker(self, lane: int, kind: WorkerKind, cores: tuple[int, ...]) -> TensorWorker:
        # Workers without cores of their own differ by their lane, so that they can wait for others.
        key = kind.device, kind.threads, cores or (-1 - lane,)
        if key not in self._workers:
            self._workers[key] = self._compiled.worker(
                threads=kind.threads,
                cores=cores or None,
                limit_s=self._limit_s,
                in_flight=_in_flight(kind),
            )
        return self._workers[key]

    def _alone(self, arrangement: Arrangement) -> Arrangement:
        """Trunk alone: on its own worker, or on that of the code for the host after a failure."""
        trunk = arrangement.trunk
        if self.has_failed and self._kinds[trunk].device:
            hosts = (kind for kind in self._kinds.values() if not kind.device)
            threads = self._compiled.threads
            trunk = next((one.name for one in hosts if one.threads == threads), trunk)
        return Arrangement(trunk=trunk, branches=(None,) * (self._exits - 1))


def _in_flight(kind: WorkerKind) -> InFlight | None:
    """Device of a worker with the limit of the work in its queue; None for the host's cores."""
    if not kind.device:
        return None
    return InFlight(device=DeviceId.parse(kind.device), most=kind.in_flight)


def _warn(why: str) -> None:
    logger.warning("exits are off, and the trunk alone answers: %s", why)


def _cores(kinds: Sequence[WorkerKind], cores: Sequence[int]) -> list[tuple[int, ...]] | None:
    """Assign cores, in order, to workers that run at the same time; None if there are too few."""
    free = list(cores)
    found = []
    for kind in kinds:
        found.append(tuple(sorted(free[: kind.cores])))
        free = free[kind.cores :]
    return found if all(map(_has_all, found, kinds)) else None


def _has_all(cores: tuple[int, ...], kind: WorkerKind) -> bool:
    return len(cores) == kind.cores
