"""Sure answers and losses of policies, their files, and wrong values."""

import itertools

import numpy as np
import pytest

from layoutsel.documents import DocumentError
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import Certificate, Policy, PolicyError

NAN = float("nan")


def observed(scores, predictions, labels=None):
    return ExitMatrix(
        exits=tuple(f"e{index}" for index in range(len(scores[0]))),
        score="margin",
        scores=np.array(scores, float),
        predictions=np.array(predictions),
        labels=None if labels is None else np.array(labels),
    )


def policy(*thresholds, **fields):
    return Policy(score="margin", thresholds=(*thresholds, None), **fields)


def test_a_score_at_its_threshold_is_sure_and_nan_is_not():
    matrix = observed([[0.5, 0.5, 0], [0.25, 1, 0], [NAN, NAN, NAN]], [[0, 0, 0]] * 3)
    sure = policy(0.5, None).sure(matrix)
    assert sure.dtype == bool
    assert sure.tolist() == [[True, False], [False, False], [False, False]]
    assert policy(0.0, 0.0).sure(matrix)[2].tolist() == [False, False]


def test_losses_take_any_sure_exit_that_is_wrong():
    matrix = observed([[1, 1, 0]] * 4, [[1, 0, 0], [0, 1, 0], [1, 1, 2], [0, 0, 0]], [0, 0, 0, 0])
    assert policy(0.5, 0.5).losses(matrix).tolist() == [True, True, False, False]
    assert policy(None, 0.5).losses(matrix).tolist() == [False, True, False, False]


def by_hand(row, scores, active, patience):
    """Exits of one sample that end a row of equal predictions, by definition."""
    running = [index for index in range(len(active)) if active[index]]
    found = [False] * len(active)
    for place, index in enumerate(running):
        last = running[max(0, place - patience + 1) : place + 1]
        equal = (
            len({row[one] for one in last}) == 1 and not np.isnan([scores[i] for i in last]).any()
        )
        found[index] = len(last) == patience and equal
    return found


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_patience_counts_the_exits_that_run(patience):
    rows = list(itertools.product([0, 1], repeat=4))
    scores = [[NAN if mask >> bit & 1 else 0.0 for bit in range(4)] for mask in range(16)]
    samples = [(row, score) for row in rows for score in scores]
    matrix = observed([[*score, 0] for _, score in samples], [[*row, 0] for row, _ in samples])
    for active in itertools.product([True, False], repeat=4):
        asked = policy(*(1.0 if on else None for on in active), patience=patience)
        wanted = [by_hand(row, score, active, patience) for row, score in samples]
        assert asked.sure(matrix).tolist() == wanted


def test_patience_and_thresholds_each_make_an_exit_sure():
    matrix = observed([[0.9, 0, 0], [0, 0, 0]], [[1, 2, 0], [1, 1, 0]])
    assert policy(0.5, 0.5, patience=2).sure(matrix).tolist() == [[True, False], [False, True]]


WRONG = {
    "got 1 thresholds": {"thresholds": (None,)},
    "threshold 1.5 of exit 1": {"thresholds": (1.5, None)},
    "threshold nan of exit 2": {"thresholds": (0.5, NAN, None)},
    "threshold 0.5 of the final exit": {"thresholds": (0.5, 0.5)},
    "patience 0": {"thresholds": (0.5, None), "patience": 0},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_values_are_named(message):
    with pytest.raises(PolicyError, match=message):
        Policy(score="margin", **WRONG[message])


def test_a_policy_of_other_exits_or_another_score_is_declined():
    matrix = observed([[0, 0]], [[0, 0]])
    with pytest.raises(PolicyError, match="thresholds of 3 exits; expected 2: e0, e1"):
        policy(0.5, 0.5).sure(matrix)
    with pytest.raises(PolicyError, match="score 'entropy'; got observations of 'margin'"):
        Policy(score="entropy", thresholds=(0.5, None)).sure(matrix)


def test_a_file_holds_the_policy(tmp_path):
    proof = Certificate(
        max_drop=0.01, confidence=0.95, samples=1200, losses=3, bound=0.0065, data_hash="ab"
    )
    for made in (policy(0.5, None, patience=2, certificate=proof), policy(None)):
        made.save(tmp_path / "p.json")
        assert Policy.load(tmp_path / "p.json") == made


def test_wrong_files_are_named(tmp_path):
    file = tmp_path / "p.json"
    file.write_text('{"score": "margin", "thresholds": [2, null]}')
    with pytest.raises(
        PolicyError, match=r"p\.json: policy of exits: got the threshold 2 of exit 1"
    ):
        Policy.load(file)
    file.write_text('{"score": "margin"}')
    with pytest.raises(DocumentError, match="thresholds"):
        Policy.load(file)
