"""Adapting to a machine: what few measurements correct, which are chosen, and what is kept of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from learning import profile, samples

from layoutsel.cost import adapt, corrections, features
from layoutsel.cost.corrections import NOISE, Adaptation, Traits, covariance


def rows(count=120):
    return np.stack(
        [
            features.features(
                features.PricingQuestion(s.workload, s.decision, s.provenance.profile)
            )
            for s in samples(count)
        ]
    )


def traits(count=120, unit="cpu"):
    found = rows(count)
    return Traits.of([unit] * len(found), found, np.linspace(0.0, 9.0, len(found)))


def observed(of, errors):
    return Adaptation(of, tuple(map(float, errors)))


def test_a_factor_of_the_machine_and_one_of_a_layout_are_found_from_fifty_observations():
    rng, found = np.random.default_rng(0), traits()
    truth = 0.5 + 0.2 * rows()[:, features.NAMES.index("layout_NHWC")]
    chosen = adapt.most_informative(found, 50)
    errors = truth[chosen] + 0.02 * rng.standard_normal(50)
    expected, deviation = observed(found.take(chosen), errors).correct(found)
    assert np.mean(np.abs(expected - truth)) < 0.05
    assert (deviation < 0.35).all()


def test_few_observations_correct_less_than_many():
    """Shrunk: one outlier does not move a whole unit."""
    found = traits()
    few = observed(found.take([0]), [1.0]).correct(found)[0]
    many = observed(found.take(range(40)), [1.0] * 40).correct(found)[0]
    assert 0 < 2 * np.mean(few) < np.mean(many)
    assert 0.7 < np.mean(many) < 1.05


def test_a_unit_without_observations_is_corrected_less_and_stays_uncertain():
    seen, other = traits(40), traits(40, "onednn")
    adaptation = observed(seen, [0.6] * len(seen))
    mine, my_deviation = adaptation.correct(seen)
    its, its_deviation = adaptation.correct(other)
    assert np.mean(mine) > 0.5 > np.mean(its) > 0.1
    assert (its_deviation > 2 * my_deviation).all()


def test_an_outlier_counts_less_than_its_size():
    found = traits(40)
    errors = np.zeros(len(found))
    errors[3] = 20.0
    assert np.abs(observed(found, errors).correct(found)[0]).mean() < 1.0


def test_held_out_errors_are_those_of_corrections_without_the_candidate():
    rng, found = np.random.default_rng(0), traits(30)
    errors = 0.3 + 0.1 * rng.standard_normal(len(found))
    whole = observed(found, errors)
    for left_out in (0, 7, 29):
        kept = [n for n in range(len(found)) if n != left_out]
        expected = observed(found.take(kept), errors[kept]).correct(found.take([left_out]))[0]
        assert whole.held_out[left_out] == pytest.approx(errors[left_out] - expected[0], abs=1e-6)


def test_covariances_are_those_of_a_process():
    found = traits(60)
    shared = covariance(found, found)
    assert np.allclose(shared, shared.T)
    assert np.linalg.eigvalsh(shared).min() > -1e-9


def test_chosen_measurements_leave_less_uncertainty_than_random_ones():
    found, rng = traits(), np.random.default_rng(0)

    def left(indices):
        return (observed(found.take(indices), [0.0] * len(indices)).correct(found)[1] ** 2).sum()

    chosen = adapt.most_informative(found, 10)
    assert len(set(chosen)) == 10
    drawn = [left(rng.choice(len(found), 10, replace=False)) for _ in range(20)]
    assert left(chosen) < min(drawn)


def test_only_a_correction_that_helps_is_kept():
    rng = np.random.default_rng(0)
    count = len(rows(30))
    slower, known = traits(30, "slower"), traits(30, "known")
    both = Traits(*(a + b for a, b in zip(slower.parts, known.parts, strict=True)))
    noise = rng.normal(0, 0.05, 2 * count)
    errors = noise + np.repeat([0.7, 0.0], count)
    kept, left = adapt.useful(observed(both, errors))
    assert any(kept.errors[:count])
    assert not any(kept.errors[count:])
    assert left < 0.2
    assert kept.correct(known)[1].max() < 0.35


def test_many_candidates_are_corrected_in_blocks(monkeypatch):
    """Covariances of a network with thousands of sub-graphs filled gigabytes."""
    found = traits(60)
    adaptation = observed(found.take(range(30)), np.linspace(-0.5, 0.9, 30))
    us = np.linspace(1.0, 50.0, len(found))
    whole = (*adaptation.correct(found), adaptation.shared_deviation(found, us))
    monkeypatch.setattr(corrections, "_BLOCK", 7)
    parts = (*adaptation.correct(found), adaptation.shared_deviation(found, us))
    for one, other in zip(whole, parts, strict=True):
        assert np.allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("count", [0, 30])
def test_the_deviation_of_a_total_is_that_of_the_joint_covariance(count):
    found = traits(40)
    adaptation = observed(found.take(range(count)), np.zeros(count))
    us = np.linspace(1.0, 50.0, len(found))
    joint = covariance(found, found)
    if count:
        seen = covariance(found, adaptation.traits)
        own = covariance(adaptation.traits, adaptation.traits) + NOISE**2 * np.eye(count)
        joint = joint - seen @ np.linalg.solve(own, seen.T)
    assert adaptation.shared_deviation(found, us) == pytest.approx((us @ joint @ us) ** 0.5)


def test_nothing_observed_corrects_nothing():
    found = traits(5)
    expected, deviation = Adaptation().correct(found)
    assert not expected.any()
    assert (deviation > NOISE).all()
    assert adapt.useful(Adaptation()) == (Adaptation(), 0.0)
    assert sorted(adapt.most_informative(found, 1000)) == list(range(len(found)))


def test_it_is_kept_for_one_model(tmp_path):
    file = tmp_path / "new" / "calibration.json"
    found = traits(8)
    adaptation = replace(observed(found, np.arange(len(found))), noise=0.4)
    adapt.save(adaptation, "v1", file)
    assert adapt.load("v1", file) == adaptation
    assert adapt.load("v2", file) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": "v1"}'])
def test_a_broken_file_adapts_nothing(tmp_path, content):
    file = tmp_path / "c.json"
    file.write_text(content)
    assert adapt.load("v1", file) is None
    assert adapt.load("v1", tmp_path / "absent") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept["errors"].pop(),
        lambda kept: kept["traits"]["units"].pop(),
        lambda kept: kept["traits"]["sizes"][0].pop(),
        lambda kept: kept["traits"].update(kinds=[row[:-1] for row in kept["traits"]["kinds"]]),
        lambda kept: kept.update(noise=0.0),
    ],
    ids=["error", "unit", "size", "kinds of another version", "no noise"],
)
def test_parts_that_do_not_fit_adapt_nothing(tmp_path, damage):
    file = tmp_path / "c.json"
    found = traits(8)
    adapt.save(observed(found, np.zeros(len(found))), "v1", file)
    document = json.loads(file.read_text())
    damage(document["adaptation"])
    file.write_text(json.dumps(document))
    assert adapt.load("v1", file) is None


def test_every_unit_gets_its_share_of_the_measurements():
    found = rows(40)
    units = ["cpu", "onednn"] * (len(found) // 2)
    pool = Traits.of(units, found[: len(units)], np.zeros(len(units)))
    chosen = adapt.most_informative(pool, 20)
    assert 6 <= sum(units[i] == "cpu" for i in chosen) <= 14


def test_machines_have_files_of_their_own(tmp_path):
    files = {adapt.adaptation_file(profile(cores), tmp_path) for cores in (1, 2)}
    assert len(files) == 2
