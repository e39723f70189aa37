"""The demonstration of a cluster, on two real nodes."""

from __future__ import annotations

import importlib.util
import re

import pytest

from tests.cli.command import succeed


@pytest.mark.nightly
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: layoutsel[cluster]"
)
def test_a_killed_node_loses_nothing():
    printed = succeed("cluster", "demo", "--model", "light:squeezenet")
    (told,) = re.findall(r"(\d+) right answers, (\d+) wrong, none lost", printed)
    assert told == ("80", "0")
    assert printed.count("measured") == 2
