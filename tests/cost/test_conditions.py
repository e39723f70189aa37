"""The state of the machine in the question, and the vector in the answer."""

from __future__ import annotations

from math import inf, nan

import pytest
from learning import convolution, profile
from test_measured import Guess

from layoutsel.core.workload import BoundaryTensor, Cost, Estimate
from layoutsel.cost.conditions import AS_MEASURED, Conditions, uncertainty
from layoutsel.cost.learned import LearnedCost, LearnedModel
from layoutsel.cost.measured import MeasuredCost
from layoutsel.cost.place import Place
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.store import Context, Store
from layoutsel.device.core_load import CoreLoad
from layoutsel.device.outcome import Timing
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

NHWC = Decision(unit="cpu", layout="NHWC")
WORK = convolution(64, 64, 28)
TENSOR = BoundaryTensor(shape=(1, 64, 28, 28), dtype="float32", bytes=4 * 64 * 28 * 28)
UNUSUAL = (
    Conditions(threads=1),
    Conditions(frequency_mhz=1500.0),
    Conditions(queue=2.0),
    Conditions(threads=1, queue=2.0),
)


@pytest.fixture(scope="module")
def learned():
    return LearnedCost(LearnedModel.load(), profile())


@pytest.fixture(params=["roofline", "learned", "measured"])
def model(request, learned, tmp_path):
    if request.param != "measured":
        yield learned if request.param == "learned" else RooflineCost.of(profile())
        return
    with Store(Context(machine="m", versions={}, threads=2), tmp_path / "m.sqlite") as store:
        store.put(WORK.key, NHWC, Timing(us=50, spread_us=2, runs=3), "nn.conv2d")
        store.put_boundary("transform", "NCHW", "NHWC", TENSOR, Timing(us=7, spread_us=1, runs=3))
        yield MeasuredCost(store, Guess())


@pytest.mark.parametrize("conditions", UNUSUAL, ids=str)
def test_an_unfamiliar_state_widens_the_spread_and_leaves_the_time(model, conditions):
    ends = Place("NCHW", "cpu"), Place("NHWC", "cpu")
    for usual, other in (
        (model.subgraph(WORK, NHWC), model.subgraph(WORK, NHWC, conditions)),
        (model.boundary(TENSOR, *ends), model.boundary(TENSOR, *ends, conditions)),
    ):
        assert other.us == usual.us
        assert other.source == usual.source
        assert other.spread_us > usual.spread_us + 0.1 * usual.us


def test_the_state_of_the_measurements_changes_nothing(model):
    for same in (
        AS_MEASURED,
        Conditions(),
        Conditions(threads=2),
        Conditions(load=CoreLoad.idle(2), queue=0),
    ):
        assert model.subgraph(WORK, NHWC, same) == model.subgraph(WORK, NHWC)


def test_further_away_is_less_certain():
    known = Conditions(threads=4)
    widths = [uncertainty(Conditions(threads=n), known) for n in (4, 3, 2, 1)]
    assert widths == sorted(widths)
    assert widths[0] == 0.0
    waiting = [uncertainty(Conditions(queue=n), known) for n in (0, 1, 2, 4)]
    assert waiting == sorted(waiting)
    assert waiting[0] < waiting[1]
    assert uncertainty(Conditions(frequency_mhz=2000), Conditions(frequency_mhz=2000)) == 0.0


@pytest.mark.parametrize("threads", [1, 2])
def test_a_load_makes_work_on_the_host_slower_and_less_certain(model, threads):
    busy = Conditions(threads=threads, load=CoreLoad(busy=(1.0, 1.0)))
    ends = Place("NCHW", "cpu"), Place("NHWC", "cpu")
    for usual, other in (
        (model.subgraph(WORK, NHWC), model.subgraph(WORK, NHWC, busy)),
        (model.boundary(TENSOR, *ends), model.boundary(TENSOR, *ends, busy)),
    ):
        # Recorded: twice to three times as long on one thread, 2.2 to 4.1 times on two.
        assert 1.5 * usual.us < other.us < 5 * usual.us
        assert other.spread_us > usual.spread_us * other.us / usual.us
        assert other.source == ("learned" if usual.source == "measured" else usual.source)
        assert other.bytes_moved == usual.bytes_moved


def test_a_thread_runs_on_the_free_core_unless_it_is_confined(model):
    load = CoreLoad(busy=(1.0, 0.0), streaming=0.0)
    free, confined = (
        model.subgraph(WORK, NHWC, Conditions(threads=1, cores=cores, load=load))
        for cores in ((), (0,))
    )
    assert confined.us > 1.4 * free.us


def test_a_load_on_the_host_does_not_slow_a_device(model):
    busy = Conditions(load=CoreLoad(busy=(1.0, 1.0)))
    opencl = Decision(unit="opencl", layout="NCHW")
    assert model.subgraph(WORK, opencl, busy).us == model.subgraph(WORK, opencl).us
    assert model.subgraph(WORK, NHWC, busy).us > model.subgraph(WORK, NHWC).us


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0},
        {"frequency_mhz": 0.0},
        {"queue": nan},
        {"queue": inf},
        {"cores": (2,), "load": CoreLoad.idle(2)},
    ],
    ids=str,
)
def test_an_impossible_state_is_one_error(wrong):
    with pytest.raises(LayoutselError, match=f"got {next(iter(wrong))}"):
        Conditions(**wrong)


def test_bytes_come_from_the_workload_and_energy_is_unknown(model):
    cost = model.subgraph(WORK, NHWC)
    if isinstance(model, MeasuredCost) or cost.source != "guess":
        whole = WORK.weight_bytes + WORK.activation_bytes
        assert cost.bytes_moved == cost.memory_bytes == Estimate(whole, 0.0, "workload")
    assert cost.energy_mj is None


def test_a_narrow_precision_moves_half_the_bytes(learned):
    whole = WORK.weight_bytes + WORK.activation_bytes
    for unit in ("cpu", "toy"):
        cost = learned.subgraph(WORK, Decision(unit=unit, layout="NHWC", precision="bf16"))
        assert cost.bytes_moved.value == whole / 2


def test_costs_add_up_and_unknown_stays_unknown():
    one = Cost(time_us=Estimate(2, 1, "learned"), bytes_moved=Estimate(8), memory_bytes=Estimate(4))
    other = Cost(time_us=Estimate(3, 2, "roofline"), bytes_moved=Estimate(8), energy_mj=Estimate(1))
    both = one + other
    assert both.time_us == Estimate(5, 3, "roofline")
    assert both.bytes_moved.value == 16
    assert both.memory_bytes is None
    assert both.energy_mj is None
    assert (one + one).memory_bytes.value == 4
