"""``layoutsel search offload``, interrupted by Ctrl-C and gone on with."""

import importlib.util
import json
import signal
import subprocess
import time

import pytest
from command import COMMAND, layoutsel

from layoutsel.core.exit_codes import INTERRUPTED
from layoutsel.search.offload.search import CHECKPOINT
from layoutsel.search.run_folder import LOG, PRICES
from tests.cli.test_cli_search import SPACE


@pytest.mark.nightly
@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (extra train)"
)
def test_an_interrupted_search_goes_on(tmp_path):
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    run = tmp_path / "run"
    short = ("--epochs", "2", "--sweep-epochs", "1", "--drawn", "0", "--retrain-epochs", "1")
    options = ("--link", "20Mbit/s,5ms", "--space", tmp_path / "space.json", "--cost", "roofline")
    asked = [str(one) for one in ("search", "offload", *options, "-o", run, *short)]
    with subprocess.Popen([*COMMAND, *asked], stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 200
        while not (run / CHECKPOINT).exists():
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.communicate(timeout=60)[1]
    assert process.returncode == INTERRUPTED
    before = (run / LOG).read_text().splitlines()
    prices = (run / PRICES).read_text()
    done = layoutsel(*asked)
    assert done.returncode == 0, done.stderr
    assert "ms on device alone and" in done.stderr + done.stdout
    assert "to divide it does not pay over this link: device alone" in done.stderr + done.stdout
    after = (run / LOG).read_text().splitlines()
    assert after[: len(before)] == before
    passes = [json.loads(line)["report"] for line in after if json.loads(line)["event"] == "pass"]
    single = ("trial", "retrain")
    found = [(one["phase"], one["epoch"]) for one in passes if one["phase"] not in single]
    assert found == list(dict.fromkeys(found))
    assert found.pop() == ("teacher", 1)
    assert found[:2] == [("warm", 1), ("warm", 2)]
    assert found[-1][0].startswith("sweep")
    # Slices add prices; those of the space stay.
    held, kept = json.loads(prices), json.loads((run / PRICES).read_text())
    for name, one in held["classes"].items():
        assert one["us"].items() <= kept["classes"][name]["us"].items()
