"""What is charged where threads share output channels, and so read each other's part of the input."""

from __future__ import annotations

import pytest

from layoutsel.compile.pricing import FETCH_GBPS, fetching_us
from layoutsel.core.workload import Workload
from tvm_passes.decision import Decision

INPUT = (1, 64, 28, 28)


@pytest.mark.parametrize(
    ("precision", "parts", "nbytes"),
    [
        ("bf16", 1, 0.0),
        ("bf16", 2, 64 * 28 * 28),
        ("split-bf16", 2, 2 * 64 * 28 * 28),
        ("split-bf16", 4, 3 * 64 * 28 * 28),
    ],
)
def test_every_thread_fetches_what_the_others_wrote(precision, parts, nbytes):
    decision = Decision.parse(f"amx:NHWC:{precision}")
    work = Workload(
        key="a",
        operator="nn.conv2d",
        flops=1,
        weight_bytes=1,
        activation_bytes=1,
        inputs=(INPUT,),
        hints={str(decision): {"parts": float(parts)}},
    )
    assert fetching_us(work, decision) == pytest.approx(nbytes / FETCH_GBPS * 1e-3)
    assert fetching_us(work, Decision.parse("onednn:NHWC")) == 0.0
