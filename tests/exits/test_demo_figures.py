"""Figures of the demonstration of several exits."""

from __future__ import annotations

import math

import numpy as np
from exit_models import images, network, policy_of, started

from layoutsel.exits.demo_figures import exit_times, medians_in_turns
from layoutsel.exits.samples import Samples


def test_medians_are_of_the_times_that_are_known():
    samples = Samples(inputs=tuple([np.array(float(n))] for n in range(5)), labels=None)
    runs = {
        "all": lambda inputs: float(inputs[0]),
        "some": lambda inputs: math.nan if inputs[0] < 3 else float(inputs[0]),
        "none": lambda _: math.nan,
    }
    found = medians_in_turns(runs, samples)
    assert (found["all"], found["some"]) == (2.0, 3.5)
    assert math.isnan(found["none"])


def test_exits_that_are_off_have_no_time():
    inputs = tuple([x] for x in images("chain", 3))
    with started("chain", "a-a", policy_of(0.5, 0.5)) as model:
        found = medians_in_turns(exit_times(model), Samples(inputs=inputs, labels=None))
    assert list(found) == list(network("chain").names)
    first, second, final = found.values()
    assert math.isnan(first)
    assert min(second, final) > 0
