"""Times of batches against draws of single requests, and the choice of the largest one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layoutsel.documents import DocumentError, to_json
from layoutsel.exits.batch_times import TIMES, BatchTimes, shares_reaching, times_in
from layoutsel.exits.patterns import SurePattern, patterns_of

PATTERNS = (
    SurePattern(exits=(0, 1), samples=5),
    SurePattern(exits=(1,), samples=2),
    SurePattern(exits=(), samples=3),
)


def times_of(*each_us: float, single_us: float = 100.0, shares=(1.0,)) -> BatchTimes:
    """Times of batches of 1, 2, 4, … with these times per request in one segment."""
    sizes = [1 << n for n in range(len(each_us))]
    segments = {str(n): (us * n,) * len(shares) for n, us in zip(sizes, each_us, strict=True)}
    return BatchTimes(threads=1, single_us=single_us, segments_us=segments, shares=shares)


def test_shares_are_those_of_samples_without_a_sure_exit_so_far():
    assert shares_reaching(PATTERNS, 3, [(0,), (1,), (2,)]) == pytest.approx((1.0, 0.5, 0.3))
    assert shares_reaching(PATTERNS, 3, [(0, 1), (2,)]) == pytest.approx((1.0, 0.3))
    assert shares_reaching((), 3, [(0,), (1,), (2,)]) == (1.0, 1.0, 1.0)


@given(
    st.lists(st.sampled_from([(), (0,), (1,), (0, 1)]), min_size=1, max_size=4),
    st.integers(2, 4),
    st.lists(st.floats(1, 100), min_size=9, max_size=9),
)
def test_the_mean_time_is_that_of_all_draws(drawn, requests, values):
    """Every request may have each of the observed patterns."""
    sure = np.array([[exit_ in one for exit_ in (0, 1)] for one in drawn])
    segments = {size: tuple(values[3 * n : 3 * n + 3]) for n, size in enumerate("124")}
    shares = shares_reaching(patterns_of(sure), 3, [(0,), (1,), (2,)])
    times = BatchTimes(threads=1, single_us=1.0, segments_us=segments, shares=shares)
    total = []
    for batch in itertools.product(drawn, repeat=requests):
        us, staying = 0.0, list(batch)
        for number in range(3):
            if staying:
                size = next(n for n in (1, 2, 4) if n >= len(staying))
                us += segments[str(size)][number]
            staying = [one for one in staying if number not in one]
        total.append(us)
    assert times.batch_us(requests) == pytest.approx(np.mean(total))


@pytest.mark.parametrize(
    ("each_us", "largest"),
    [((90, 50, 30, 20), 8), ((90, 50, 49, 48), 2), ((90, 120, 40, 41), 4), ((90, 99, 98, 97), 1)],
)
def test_the_largest_batch_that_pays(each_us, largest):
    assert times_of(*each_us).largest() == largest


def test_a_mostly_empty_size_is_not_begun():
    """Four at 40 us each take less time than a batch of eight with five in it, at 20 · 8 / 5."""
    assert times_of(90, 60, 31, 20).counts() == (1, 2, 3, 4, 4, 6, 7, 8)
    assert times_of(90, 60, 31, 20, single_us=10.0).counts() == (1,) * 8


def test_documents():
    times = times_of(90, 50, shares=(1.0, 0.5))
    assert times_in({TIMES: to_json(times)}, "net.so") == times
    assert times_in({}, "net.so") is None
    for segments, message in (
        ({"0": [1.0, 2.0]}, r"got the sizes \['0'\]; expected one or more positive numbers"),
        ({"1": [1.0], "2": [1.0, 2.0]}, r"\$\.segments_us\.1: got 1 segments; expected 2"),
    ):
        with pytest.raises(DocumentError, match=message):
            times_in({TIMES: {**to_json(times), "segments_us": segments}}, "net.so")
