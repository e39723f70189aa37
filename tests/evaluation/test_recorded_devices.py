"""Recorded models with candidates on devices: what lies in another memory is copied, as it was measured."""

from layoutsel.core.workload import Cost
from layoutsel.cost.samples import Offer, RecordedModel, RecordedNode
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.evaluation.regret import recorded_problem
from tvm_passes.decision import Decision, SubgraphId


def test_copies_are_priced_between_memories():
    id_ = SubgraphId("s0")
    offers = tuple(
        Offer(
            decision=Decision(unit=unit, layout="NCHW"),
            in_layouts=("NCHW",),
            out_layouts=("NCHW",),
        )
        for unit in ("cpu", "opencl")
    )
    ends = {"producer": (None, id_), "consumer": (id_, None)}
    tensors = tuple(
        Tensor(
            producer=producer,
            output_index=0,
            uses=(TensorUse(consumer=consumer, input_index=0),),
            shape=(1, 8),
        )
        for producer, consumer in zip(*ends.values(), strict=True)
    )
    model = RecordedModel(
        name="one",
        machine="here/2",
        nodes=(RecordedNode(id=id_, key="k", offers=offers),),
        tensors=tensors,
    )
    prices = {("cpu", "opencl"): 7.0, ("opencl", "cpu"): 11.0}
    problem = recorded_problem(
        model,
        lambda _node, _decision: Cost.timed(100.0, 1.0, "measured"),
        lambda kind, _tensor, s, d: 0.0 if "host" in (s, d) else prices[s, d],
    )
    for offer, us in zip(offers, (100.0, 118.0), strict=True):
        assert problem.cost({id_: offer.decision}).total_us == us
