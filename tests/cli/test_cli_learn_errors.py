"""What the commands of the learned cost model refuse, and how limits on instruction sets reach a plan."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import time

import pytest
from command import layoutsel, refused, run_here, succeed
from learning import boundaries, samples

from layoutsel.cli import options
from layoutsel.cli.limited import limited
from layoutsel.core.choices import COSTS
from layoutsel.core.memory_limits import most_bytes
from layoutsel.cost.archive import write_archive
from layoutsel.cost.samples import Dataset
from layoutsel.device.machine import this_machine
from tvm_passes.errors import LayoutselError
from tvm_passes.isa import VARIABLE


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    file = tmp_path_factory.mktemp("log") / "log.jsonl.xz"
    write_archive(Dataset(samples=samples(20), boundaries=boundaries()), file)
    return file


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20s", 20), ("20", 20), ("1.5m", 90), (" 2 m ", 120), ("0", 0), ("1e1s", 10)],
)
def test_times_are_read(text, seconds):
    assert options.parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "m", "20ms", "5sm", "5ss", "5mm", "-1s", "nan", "inf", "1h", "20 seconds"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(LayoutselError, match="expected seconds or minutes"):
        options.parse_seconds(text)


def test_the_options_offer_what_the_session_takes():
    assert options.COSTS == COSTS


def test_a_real_process_refuses_in_one_line():
    line = refused("plan", "light:squeezenet", "--cost", "guess", run=layoutsel)
    assert "expected one of auto, learned" in line


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("limit", "said"),
    [("0.00001s", "took more than 1e-05 s and was ended: give it less data"), ("0s", "above 0")],
)
def test_without_time_nothing_is_learned(command, limit, said, log, tmp_path):
    place = ("-o", tmp_path / "model") if command == "train" else ()
    assert said in refused(command, log, "--time-limit", limit, *place)
    assert not list(tmp_path.glob("model/*"))


def test_limits_end_with_their_command():
    before = resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGALRM)
    with limited("100s"):
        assert 0 < resource.getrlimit(resource.RLIMIT_DATA)[0] <= most_bytes()
        with pytest.raises(MemoryError):
            bytearray(2 * most_bytes())
    assert (resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGALRM)) == before


def test_what_takes_errors_takes_no_end_of_time():
    def stubborn():
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    with pytest.raises(LayoutselError, match="took more than"), limited("0.05s"):
        stubborn()


@pytest.mark.parametrize("below", [False, True])
def test_where_no_folder_can_be_made_nothing_is_trained(log, tmp_path, below):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    line = refused("train", log, "-o", taken / "model" if below else taken)
    assert "cannot write" in line
    assert taken.read_text() == "mine"


def test_too_few_samples_are_refused(tmp_path):
    write_archive(Dataset(samples=samples(2)), tmp_path / "few.xz")
    line = refused("train", tmp_path / "few.xz", "-o", tmp_path / "made")
    assert "got 6 samples" in line
    assert not (tmp_path / "made" / "model.json").exists()


def test_a_folder_is_no_log(tmp_path):
    assert "cannot read" in refused("evaluate", tmp_path)


def test_what_is_skipped_is_told(log, tmp_path):
    cut = tmp_path / "cut.jsonl.xz"
    cut.write_bytes(log.read_bytes()[:-200])
    done = run_here("train", cut, "-o", tmp_path / "made")
    assert "skipped: 1 in" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_whole_plans_nothing(model, tmp_path):
    assert "model.json" in refused("plan", model, "--cost-model", tmp_path)


def test_a_budget_of_nothing_measures_nothing(model, tmp_path):
    plan, cache = tmp_path / "plan.json", tmp_path / "cache.sqlite"
    more = ("--cost", "hybrid", "--measure-budget", "0s", "--cache", cache)
    succeed("plan", model, *more, "-o", plan)
    document = json.loads(plan.read_text())
    assert {entry["source"] for entry in document["subgraphs"]} == {"learned"}


@pytest.mark.skipif("avx512f" not in this_machine().isa, reason="the CPU has no AVX-512")
def test_a_plan_for_avx2(model, plan_file, tmp_path):
    plan = tmp_path / "plan.json"
    more = ("--cost", "roofline", "-o", plan)
    succeed(
        "plan", model, *more, run=lambda *arguments: layoutsel(*arguments, **{VARIABLE: "AVX2"})
    )
    document = json.loads(plan.read_text())
    assert document["machine"] != json.loads(plan_file.read_text())["machine"]
    text = plan.read_text()
    assert ":NCHW8c" in text
    assert ":NCHW16c" not in text


def test_an_unknown_instruction_set_is_one_line(model):
    done = layoutsel("plan", model, **{VARIABLE: "AVX9"})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{VARIABLE}=AVX9: not supported" in done.stderr
