"""Methods of the joint bench: networks that they ask for, and the placements of those. All know all predicted times."""

from __future__ import annotations

import optuna

from search.joint_others import local, random_networks, sampled
from search.joint_placements import Place, equal_split, exact, one_device, one_split
from search.joint_surrogates import handmade, joint, search_then_split, split_then_search
from search.joint_task import Ask

OURS = "joint"


METHODS: dict[str, tuple[Ask, Place]] = {
    OURS: (joint, exact),
    "joint, one split": (joint, one_split),
    "joint, equal split": (joint, equal_split),
    "joint, one device": (joint, one_device),
    "search, then split": (search_then_split, exact),
    "split, then search": (split_then_search, exact),
    "random": (random_networks, exact),
    "local search": (local, exact),
    "NSGA-II": (
        sampled(lambda seed: optuna.samplers.NSGAIISampler(population_size=12, seed=seed)),
        exact,
    ),
    "TPE": (sampled(lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed)), exact),
    "hand-made network": (lambda task, _seed: [handmade(task)], exact),
}
"""Networks that are asked and placements, by method."""
