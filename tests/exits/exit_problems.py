"""Random problems of exit planning; all times are exact in binary."""

from hypothesis import strategies as st

from layoutsel.exits.arrangement import Arrangement, ExitCosts, WorkerKind
from layoutsel.exits.patterns import SurePattern

MICROSECONDS = st.integers(0, 40).map(float)
WORK = st.integers(1, 40).map(float)


def workers(count):
    return tuple(
        WorkerKind(name=f"w{number}", unit=f"u{number}", threads=1, cores=1)
        for number in range(count)
    )


@st.composite
def exit_costs(draw, exits=(2, 4), kinds=(1, 3)):
    last = draw(st.integers(*exits)) - 1
    kinds = workers(draw(st.integers(*kinds)))
    names = [kind.name for kind in kinds]
    some = st.lists(WORK, min_size=1, max_size=3).map(tuple)
    any_number = st.lists(WORK, max_size=3).map(tuple)
    pairs = [(a, b) for a in names for b in names if a != b]
    return ExitCosts(
        workers=kinds,
        cores=draw(st.integers(1, len(names))),
        trunk_us={name: (*(draw(any_number) for _ in range(last)), draw(some)) for name in names},
        branch_us={name: tuple(draw(some) for _ in range(last)) for name in names},
        needs=tuple(
            tuple(other for other in range(number) if draw(st.integers(0, 3)) == 0)
            for number in range(last)
        ),
        start_us=draw(st.sampled_from([0.0, 2.0])),
        request_us=draw(st.sampled_from([0.0, 5.0])),
        call_us=draw(st.sampled_from([0.0, 3.0, 30.0])),
        waiting={name: share for name in names if (share := draw(st.sampled_from([0.0, 0.5])))},
        wait_us=draw(st.sampled_from([16.0, 400.0])),
        mean_over_median=draw(st.sampled_from([1.0, 1.25])),
        late={name: share for name in names if (share := draw(st.sampled_from([0.0, 0.25])))},
        handover_us={
            f"{a}>{b}": tuple(draw(MICROSECONDS) for _ in range(last))
            for a, b in pairs
            if draw(st.booleans())
        },
        slowdown={f"{a}|{b}": draw(st.sampled_from([1.0, 2.0, 4.0])) for a, b in pairs},
    )


@st.composite
def arrangements(draw, costs):
    """Any arrangement, of as many workers as there are, with all that is needed."""
    names = [kind.name for kind in costs.workers]
    branches = [draw(st.sampled_from([None, *names])) for _ in costs.needs]
    for number in reversed(range(len(branches))):
        for other in costs.needs[number] if branches[number] else ():
            branches[other] = branches[other] or draw(st.sampled_from(names))
    return Arrangement(trunk=draw(st.sampled_from(names)), branches=tuple(branches))


@st.composite
def pattern_sets(draw, exits):
    sets = st.frozensets(st.integers(0, exits - 2))
    found = draw(st.lists(sets, min_size=1, max_size=6, unique=True))
    return tuple(
        SurePattern(exits=tuple(sorted(one)), samples=draw(st.integers(1, 50))) for one in found
    )
