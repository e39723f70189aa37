"""``layoutsel doctor --forget-failures``: what failed is tried again, what was measured stays."""

import json

from command import layoutsel, succeed

from layoutsel.cost.store import Context, Store
from layoutsel.device.outcome import Failure, FailureKind, Timing
from tvm_passes.decision import Decision

CONTEXT = Context(machine="m", versions={"tvm": "0.27"}, threads=2)
GOOD, BAD = Decision(unit="cpu", layout="NHWC"), Decision(unit="onednn", layout="NHWC")


def test_failures_are_forgotten_and_counted(tmp_path):
    cache = tmp_path / "m.sqlite"
    with Store(CONTEXT, cache) as store:
        for key in ("a", "b"):
            store.put(key, GOOD, Timing(us=1.0, spread_us=0.0, runs=3))
            store.put(key, BAD, Failure(kind=FailureKind.CRASH, reason="SIGSEGV"))
    text = succeed("doctor", "--forget-failures", "--cache", cache, run=layoutsel)
    assert f"2 failures forgotten in {cache}" in text.replace("\n", " ")
    with Store(CONTEXT, cache) as store:
        assert store.get("a", BAD) is None
        assert store.get("a", GOOD).us == 1.0
    again = succeed("doctor", "--forget-failures", "--cache", cache, "--json")
    assert json.loads(again) == {
        "schema_version": 1,
        "measurements": str(cache),
        "forgotten": 0,
    }


def test_no_file_is_made_for_it(tmp_path):
    cache = tmp_path / "absent.sqlite"
    assert "0 failures" in succeed("doctor", "--forget-failures", "--cache", cache)
    assert not cache.exists()
