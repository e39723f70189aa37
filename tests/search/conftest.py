"""Fixtures of the tests of searches."""

import pytest

from layoutsel.device.worker import Worker


@pytest.fixture(scope="module")
def checked():
    """Run a function of offload_cases.py in a child process."""
    limits = {"time_limit_s": 120, "environment": {"OMP_NUM_THREADS": "1"}}
    with Worker("tests.search.offload_cases:run", **limits) as worker:

        def call(name, argument=None):
            reply = worker.call((name, argument))
            assert hasattr(reply, "value"), reply
            return reply.value

        yield call
