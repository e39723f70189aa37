"""Adapting to a machine: factors are found from few measurements, and measurements are chosen where they tell most."""

from __future__ import annotations

import numpy as np
import pytest
from learning import profile, samples

from layoutsel.cost import adapt, features
from layoutsel.cost.corrections import Adaptation, basis


def rows(count=120):
    return [
        features.features(features.PricingQuestion(s.workload, s.decision, s.provenance.profile))
        for s in samples(count)
    ]


def corrected(adaptation, unit, row):
    return float(basis(row) @ np.array(adaptation.weights[unit]))


def test_a_factor_per_unit_and_layout_is_found_from_fifty_observations():
    index = features.NAMES.index("layout_NHWC")
    rng = np.random.default_rng(0)
    found = rows()

    def truth(row):
        return 0.5 + 0.2 * float(row[index])

    chosen = adapt.most_informative(found, ["cpu"] * len(found), 50)
    observations = [
        adapt.Observation("cpu", found[i], truth(found[i]) + 0.02 * rng.standard_normal())
        for i in chosen
    ]
    adaptation = adapt.fit(observations)
    errors = [abs(corrected(adaptation, "cpu", row) - truth(row)) for row in found]
    assert np.mean(errors) < 0.05


def test_units_do_not_mix():
    row = rows(1)[0]
    adaptation = adapt.fit([adapt.Observation("a", row, 1.0), adapt.Observation("b", row, -1.0)])
    assert corrected(adaptation, "a", row) > 0.5 > -0.5 > corrected(adaptation, "b", row)


def test_chosen_measurements_tell_more_than_random_ones():
    found = rows()

    def information(indices):
        inputs = np.stack([basis(found[i]) for i in indices])
        return np.linalg.slogdet(np.eye(inputs.shape[1]) + inputs.T @ inputs / 0.08**2)[1]

    chosen = adapt.most_informative(found, ["cpu"] * len(found), 20)
    assert len(set(chosen)) == 20
    rng = np.random.default_rng(0)
    drawn = [information(rng.choice(len(found), 20, replace=False)) for _ in range(20)]
    assert information(chosen) > max(drawn)


def test_it_is_kept_for_one_model(tmp_path):
    file = tmp_path / "new" / "calibration.json"
    adaptation = Adaptation({"cpu": tuple(float(i) for i in range(17))})
    adapt.save(adaptation, "v1", file)
    assert adapt.load("v1", file) == adaptation
    assert adapt.load("v2", file) == Adaptation()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": "v1"}'])
def test_a_broken_file_adapts_nothing(tmp_path, content):
    file = tmp_path / "c.json"
    file.write_text(content)
    assert adapt.load("v1", file) == Adaptation()
    assert adapt.load("v1", tmp_path / "absent") == Adaptation()


def test_a_correction_of_another_length_adapts_nothing(tmp_path):
    """As a version with other basis functions would have written."""
    file = tmp_path / "c.json"
    adapt.save(Adaptation({"cpu": tuple(range(17)), "onednn": (1.0, 2.0)}), "v1", file)
    assert adapt.load("v1", file) == Adaptation()


@pytest.mark.parametrize("unit", ["cpu", "onednn"])
def test_without_observations_of_a_unit_nothing_is_corrected(unit):
    row = rows(1)[0]
    adaptation = adapt.fit([adapt.Observation("cpu", row, 0.5)])
    assert (unit in adaptation.weights) == (unit == "cpu")
    assert adapt.fit([]) == Adaptation()
    assert adapt.most_informative([], [], 5) == []
    assert adapt.most_informative([row], ["cpu"], 5) == [0]


def test_every_unit_gets_its_share_of_the_measurements():
    found = rows(40)
    units = ["cpu", "onednn"] * (len(found) // 2)
    chosen = adapt.most_informative(found[: len(units)], units, 20)
    assert 6 <= sum(units[i] == "cpu" for i in chosen) <= 14


def test_machines_have_files_of_their_own(tmp_path):
    files = {adapt.adaptation_file(profile(cores), tmp_path) for cores in (1, 2)}
    assert len(files) == 2
