"""Our own networks as division problems: recorded graphs, priced by their roofline on this machine."""

from __future__ import annotations

import numpy as np

from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.planning.division import DivisionProblem, SentTensor

LINK_GB_PER_S = 1.25
"""Rate between machines: 10 Gbit/s."""

NETWORKS = (
    "light:resnet50",
    "light:densenet121",
    "light:inception_v1",
    "light:vgg19",
    "light:shufflenet",
    "zoo:distilbert",
    "zoo:bart_small",
    "zoo:whisper_tiny_encoder",
    "zoo:llama_68m",
    "zoo:deit_tiny",
    "zoo:swinv2_tiny",
    "zoo:convnextv2_atto",
    "zoo:efficientnetv2_b0",
    "zoo:mobilenetv4_conv_small",
    "zoo:hrnet_w18_small",
    "zoo:unet_resnet34",
    "zoo:retinanet_resnet50",
    "zoo:segformer_b0",
    "zoo:googlenet",
    "zoo:inception_v3",
)
"""Twenty networks of different families."""


def planned(name: str, threads: int = 1) -> DivisionProblem:
    """Plan a network for one machine, and return its sub-graphs as planned, for one machine."""
    session = Session.open(name, threads=threads)
    problem = priced_problem(Offers.of(session), "roofline")
    plan = best_plan(session, problem)
    number = {node.id: i for i, node in enumerate(problem.nodes)}
    costs = problem.cost(plan.decisions).subgraphs
    tensors = []
    for tensor in problem.tensors:
        readers = {number[use.consumer] for use in tensor.uses if use.consumer is not None}
        if tensor.producer is not None and readers:
            us = np.array([tensor.bytes / LINK_GB_PER_S * 1e-3])
            tensors.append(
                SentTensor(
                    producer=number[tensor.producer],
                    consumers=tuple(sorted(readers)),
                    send_us=us,
                    receive_us=us,
                )
            )
    return DivisionProblem(
        compute_us=np.array([[costs[node.id]] for node in problem.nodes]),
        tensors=tuple(tensors),
        counts=(1,),
        bytes=np.zeros(len(problem.nodes)),
        limits=(np.inf,),
    )
