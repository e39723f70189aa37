"""How long does one run take, engine by engine? Groups are models; peers, stock and tuned TVM stand beside layoutsel.

``make bench``; for figures to quote use ``layoutsel bench``, which interleaves the engines in one run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from layoutsel.benchmarking.cases import Case
from layoutsel.benchmarking.engine import EngineJob
from layoutsel.benchmarking.engines import ENGINES
from layoutsel.runtime.samples import rel_l2_err
from layoutsel.zoo.light_models import LIGHT_MODELS

TUNED = pytest.mark.skipif(
    "not config.getoption('--tuned')", reason="tuning takes an hour; --tuned"
)


@pytest.mark.parametrize("model", LIGHT_MODELS)
@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=TUNED if name == "tvm-tuned" else ()) for name in ENGINES]
)
def bench_latency(
    benchmark: BenchmarkFixture, model: str, engine: str, case_of: Callable[[str], Case]
) -> None:
    """Median time of one run; the results are compared with ONNX Runtime's."""
    if reason := ENGINES[engine].unavailable():
        pytest.skip(reason)
    case = case_of(model)
    job = EngineJob(
        model=case.model,
        data=case.data,
        threads=2,
        precision="f32",
        workdir=case.model.parent,
        options={},
    )
    prepare = ENGINES[engine].prepare
    if prepare is not None:
        prepare(job, lambda _text: None)
    run = ENGINES[engine].load(job, case.inputs)
    error = max(rel_l2_err(got, want) for got, want in zip(run(), case.expected, strict=False))
    benchmark.group = model
    benchmark.extra_info.update(engine=engine, rel_l2_err=error)
    benchmark.pedantic(run, rounds=5 if engine == "tvm" else 50, warmup_rounds=2)
    assert np.isfinite(error)
