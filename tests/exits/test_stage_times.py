"""Times of stages from those of requests to them."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutsel.exits.simulate import ExitSimulator
from layoutsel.exits.stage_times import requests_to, stage_times
from tests.exits.exit_problems import exit_costs


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_stages_explain_all_requests_to_a_worker(data):
    """Costs of requests that were not measured follow from the stages' times."""
    count = data.draw(st.integers(2, 4))
    predicted = data.draw(exit_costs(exits=(count, count)))
    real = data.draw(exit_costs(exits=(count, count)))
    worker = predicted.workers[0].name
    real = replace(
        real,
        needs=predicted.needs,
        start_us=0.0,
        request_us=0.0,
        branch_us={worker: real.branch_us[real.workers[0].name]},
        # Empty stages take no time, whatever was predicted.
        trunk_us={
            worker: tuple(
                stage if any(known) else ()
                for stage, known in zip(
                    real.trunk_us[real.workers[0].name], predicted.trunk_us[worker], strict=True
                )
            )
        },
    )
    asked = list(requests_to(worker, predicted))
    simulator = ExitSimulator(real)
    times = {one: simulator.known_us(one.arrangement)[one.exit] for one in asked}
    trunk, branches = stage_times(predicted, worker, times)
    found = ExitSimulator(
        replace(
            predicted,
            start_us=0.0,
            request_us=0.0,
            trunk_us={worker: trunk},
            branch_us={worker: branches},
        )
    )
    for one in asked:
        for exit_, us in enumerate(simulator.known_us(one.arrangement)):
            assert found.known_us(one.arrangement)[exit_] == pytest.approx(
                us, rel=2e-2, nan_ok=True
            )
