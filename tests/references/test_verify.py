"""A wrong result is refused, whichever output it is in; only a softmax's own output gets its conditioning."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from layoutsel.device.checks import VerificationError, require
from layoutsel.references import verify
from layoutsel.references.verify import Expected
from layoutsel.runtime.samples import rel_l2_err

LOGITS = np.array([300.0, 299.0, -50.0])
PROBABILITIES = np.exp(LOGITS - 300) / np.exp(LOGITS - 300).sum()


def model(*results, outputs):
    signatures = [SimpleNamespace(name=name) for name in outputs]
    return SimpleNamespace(outputs=signatures, run_all=lambda _inputs: list(results))


def compare(model, values, **how):
    outputs = [one.name for one in model.outputs]
    expected = Expected(outputs=outputs, values=values, reference="reference", **how)
    checks = verify.check(model, [], expected)
    require(checks)
    return checks


def check(results, expected, outputs=("p", "other"), softmaxes=("p",)):
    return compare(model(*results, outputs=outputs), expected, softmaxes=softmaxes)


def test_only_the_softmax_gets_its_conditioning():
    other = np.ones(3)
    expected = [PROBABILITIES, other, LOGITS]
    checks = check([PROBABILITIES * (1 + 1e-3), other, LOGITS], expected)
    assert [round(c.tolerance / 1e-5) for c in checks] == [300, 1, 1]
    with pytest.raises(VerificationError, match="'other' differs"):
        check([PROBABILITIES, other * (1 + 1e-3), LOGITS], expected)


def test_wrong_logits_are_refused():
    with pytest.raises(VerificationError, match="logits of output 0"):
        check([PROBABILITIES, LOGITS * (1 + 1e-4)], [PROBABILITIES, LOGITS], outputs=("p",))


def test_a_missing_or_misshapen_reference_is_refused():
    with pytest.raises(VerificationError, match="gave 1 outputs"):
        check([PROBABILITIES, LOGITS], [PROBABILITIES])
    assert rel_l2_err(np.ones(3), np.ones(4)) == float("inf")
    assert rel_l2_err(np.array([np.nan]), np.ones(1)) == float("inf")


def test_where_the_reference_moves_the_result_may_too():
    want, got = np.ones(4), np.ones(4) * (1 + 3e-5)
    network = model(got, outputs=("y",))
    with pytest.raises(VerificationError, match="expected at most 1e-05"):
        compare(network, [want], again=lambda: [want * (1 + 2e-6)])
    (check,) = compare(network, [want], again=lambda: [want * (1 + 1e-5)])
    assert check.tolerance == pytest.approx(4e-5)


@pytest.mark.parametrize("other", [np.full(4, np.nan), np.full(4, np.inf), np.zeros(3)])
def test_a_reference_that_moves_anywhere_verifies_nothing(other):
    for got in (np.full(4, np.nan), np.full(4, 1.5)):
        network = model(got, outputs=("y",))
        with pytest.raises(VerificationError, match="differs from reference"):
            compare(network, [np.ones(4)], again=lambda: [other])


def test_the_reference_is_not_asked_again_without_need():
    compare(model(np.ones(4), outputs=("y",)), [np.ones(4)], again=pytest.fail)


EXACT = np.ones(4)


def measured(got, expected, *, exact, again=None):
    network = model(EXACT * (1 + got), outputs=("y",))
    return verify.check(network, [], expectation(expected, exact=exact, again=again))


def expectation(error, **how):
    values = [EXACT * (1 + error)]
    return Expected(outputs=["y"], values=values, reference="reference", **how)


def test_an_error_above_the_tolerance_is_measured_against_float64():
    (check,) = measured(6e-6, -6e-6, exact=lambda: [EXACT])
    assert (check.reference, check.tolerance) == ("float64", 1e-5)
    assert check.rel_l2_err == pytest.approx(6e-6)
    assert check.passed


def test_the_noise_of_the_reference_widens_nothing_where_there_is_float64():
    (check,) = measured(1.2e-5, 0, exact=lambda: [EXACT], again=pytest.fail)
    assert not check.passed
    assert (check.reference, check.tolerance) == ("float64", 1e-5)


def test_without_float64_the_noise_of_the_reference_decides_with_a_warning(caplog):
    (check,) = measured(3e-5, 0, exact=lambda: None, again=lambda: [EXACT * (1 + 1e-5)])
    assert check.passed
    assert check.reference == "reference"
    assert "reference differs from itself" in caplog.text


def test_a_float64_result_far_from_the_reference_counts_where_the_model_agrees_with_it_alone():
    (check,) = measured(0, 0.1, exact=lambda: [EXACT], again=lambda: None)
    assert check.passed
    (check,) = measured(2e-3, 0.1, exact=lambda: [EXACT], again=lambda: None)
    assert (check.passed, check.reference) == (False, "reference")


def test_float64_is_not_asked_for_without_need():
    (check,) = measured(0, 0, exact=pytest.fail)
    assert check.passed


def test_an_error_that_the_reference_has_as_well_is_attained_but_not_within_the_tolerance():
    (check,) = measured(3e-5, -1e-5, exact=lambda: [EXACT])
    assert (check.passed, check.is_attained) == (False, True)
    assert check.attainable == pytest.approx(4e-5)
    assert check.conceded().passed
    (check,) = measured(5e-5, -1e-5, exact=lambda: [EXACT])
    assert not check.is_attained


def test_what_travels_is_the_standard_in_float64_with_what_is_attainable():
    standard = expectation(-1e-5, exact=lambda: [EXACT], again=pytest.fail).portable(["y"])
    assert (standard.reference, list(standard.tolerances)) == ("float64", [1e-5])
    assert standard.attainable == [pytest.approx(4e-5)]
    assert standard.values[0] is EXACT


@pytest.mark.parametrize("exact", [lambda: None, lambda: [EXACT * 1.1]])
def test_without_a_float64_to_be_trusted_the_reference_travels_widened(exact):
    again = [EXACT * (1 + 1e-5)]
    standard = expectation(0, exact=exact, again=lambda: again).portable(["y"])
    assert (standard.reference, standard.attainable) == ("reference", [0.0])
    assert standard.tolerances == [pytest.approx(4e-5)]
