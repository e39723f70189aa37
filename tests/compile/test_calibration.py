"""A correction is kept for the units whose predictions it mends, and for no other."""

import numpy as np
from learning import samples

from layoutsel.compile.calibration import useful
from layoutsel.cost import adapt, features


def test_only_a_correction_that_helps_is_kept():
    rng = np.random.default_rng(0)
    rows = [
        features.features(features.PricingQuestion(s.workload, s.decision, s.provenance.profile))
        for s in samples(30)
    ]
    slower = [adapt.Observation("slower", row, 0.7 + rng.normal(0, 0.05)) for row in rows]
    known = [adapt.Observation("known", row, rng.normal(0, 0.05)) for row in rows]
    adaptation, left = useful([*slower, *known])
    assert any(adaptation.weights["slower"])
    assert not any(adaptation.weights["known"])
    errors = [abs(observation.error) for observation in known]
    assert left <= (0.15 + np.mean(errors)) / 2
