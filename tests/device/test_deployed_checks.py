"""A deployed model is judged on its device as at home: against float64, in the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from layoutsel.device import command
from layoutsel.device.checks import VerificationError
from layoutsel.device.outcome import Timing
from layoutsel.device.results import CheckResult, DeployedResult


def shown(error: float | None, attainable: float = 0.0) -> None:
    check = CheckResult(
        output="y", rel_l2_err=error, tolerance=1e-5, attainable=attainable, reference="float64"
    )
    timing = Timing(us=1.0, spread_us=0.1, runs=5)
    command._show(DeployedResult(timing=timing, checks=(check,)), Path("results.json"))


def test_an_error_within_the_promise(capsys):
    shown(9e-6)
    told = capsys.readouterr()
    assert "verified 'y' against float64: relative L2 error 9.0e-06" in told.out
    assert not told.err


@pytest.mark.parametrize("error", [1.2e-5, None])
def test_an_error_above_the_promise_is_refused(error):
    with pytest.raises(VerificationError, match=r"differs from float64: .* at most 1e-05"):
        shown(error)


def test_an_error_that_the_reference_has_as_well_is_told(capsys):
    shown(3e-5, attainable=4e-5)
    told = capsys.readouterr()
    assert "which f32 arithmetic hardly attains for this network" in told.err
    assert "ONNX Runtime's error against float64 is 1.0e-05" in told.err
    assert "verified 'y'" in told.out
