"""Observations and policies of one network are refused for another one with equal exits."""

import pytest
from trained_exits import NAMES, network_path, samples_path

from layoutsel.exits.calibrating import calibrate
from layoutsel.exits.matrix import ExitMatrix, MatrixError
from layoutsel.exits.network import read
from layoutsel.exits.observing import observe
from layoutsel.exits.policy import Policy, PolicyError
from layoutsel.exits.steps import plan

PROMISE = {"max_drop": 0.2, "confidence": 0.6}


@pytest.fixture(scope="module")
def networks():
    return [read(network_path(name)) for name in NAMES[:2]]


@pytest.fixture(scope="module")
def seen(networks):
    return [
        observe(network, samples_path(name)) for network, name in zip(networks, NAMES, strict=False)
    ]


def test_the_networks_differ_in_nothing_that_is_checked_besides_the_hash(networks):
    first, second = networks
    assert (first.names, first.classes) == (second.names, second.classes)
    assert first.spec.model_hash != second.spec.model_hash


def test_files_keep_the_network(seen, networks, tmp_path):
    one = networks[0].spec.model_hash
    seen[0].save(tmp_path / "seen.npz")
    assert ExitMatrix.load(tmp_path / "seen.npz").model_hash == one
    policy = calibrate(seen[0], **PROMISE)
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json").model_hash == one
    assert seen[0].part([0, 2]).model_hash == one


def test_a_policy_is_for_one_network(seen, networks):
    policy = calibrate(seen[0], **PROMISE)
    assert networks[0].with_policy(policy).spec.policy == policy
    with pytest.raises(PolicyError, match="the policy is of another network: got the hash"):
        networks[1].with_policy(policy)
    with pytest.raises(PolicyError, match="the policy is of another network"):
        policy.sure(seen[1])


def test_observations_are_of_one_network(seen, networks):
    with pytest.raises(MatrixError, match="the observations are of another network"):
        calibrate(seen[0], proof=seen[1], **PROMISE)
    free = Policy(score="max_prob", thresholds=(0.5,) * (len(networks[0].names) - 1) + (None,))
    with pytest.raises(MatrixError, match="the observations are of another network"):
        plan(networks[0], free, seen[1], measure=False)
