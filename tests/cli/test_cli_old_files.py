"""Files of older versions are read, or refused with the command that renews them; newer ones ask for a newer layoutsel."""

from __future__ import annotations

import json
import lzma
import re
import shutil
import sqlite3
import zlib
from pathlib import Path

import pytest
from command import refused, succeed
from learning import profile, samples

from layoutsel.cli.app import app
from layoutsel.cost import store_file
from layoutsel.cost.archive import write_archive
from layoutsel.cost.learned import PRETRAINED
from layoutsel.cost.samples import Dataset, MachineProfile
from layoutsel.device.artifact_header import FOOTER, MAGIC
from layoutsel.device.command import main as measure
from layoutsel.planning.plan import SCHEMA_VERSION
from tests.device.bundles import written as bundle_of

UPGRADE = "The file is newer than this layoutsel: upgrade layoutsel"
PLAN = "Plan again with 'layoutsel plan MODEL -o FILE'"
COMPILE = "Compile the model again with 'layoutsel compile MODEL -o FILE'"
TRAIN = "Train it again with 'layoutsel train LOG -o FOLDER'"
PROFILE = "Measure again with 'layoutsel profile MODEL'"
MEASURE = "Measure again with 'layoutsel-measure BUNDLE -o FILE'"
BUNDLE = "Bundle the model again with 'layoutsel bundle MODEL -o FILE'"


def edited(source: Path, file: Path, **changed) -> Path:
    file.write_text(json.dumps({**json.loads(source.read_text()), **changed}))
    return file


@pytest.mark.parametrize(("version", "advice"), [(1, PLAN), (2, PLAN), (5, UPGRADE)])
def test_plans(model, plan_file, tmp_path, version, advice):
    plan = edited(plan_file, tmp_path / "plan.json", schema_version=version, colour="any")
    commands = (
        ("compile", model, "--plan", plan, "-o", tmp_path / "x.so"),
        ("bundle", model, "--plan", plan, "-o", tmp_path / "x.tar"),
        ("explain", plan),
    )
    expected = f"{plan}: at $.schema_version: got {version}; expected 3 or 4. {advice}"
    for command in commands:
        assert refused(*command) == f"layoutsel: error: {expected}"


def test_a_plan_of_version_3_is_compiled_and_explained(model, plan_file, tmp_path):
    """Version 3 had neither objectives nor their values and orders."""
    document = json.loads(plan_file.read_text())
    for name in ("objective", "values", "order"):
        del document[name]
    old = tmp_path / "old.json"
    old.write_text(json.dumps({**document, "schema_version": 3}))
    succeed("compile", model, "--plan", old, "-o", tmp_path / "x.so")
    for file in (old, tmp_path / "x.so"):
        told = json.loads(succeed("explain", file, "--json"))
        assert told["schema_version"] == SCHEMA_VERSION
        assert {s["id"]: s["decision"] for s in told["subgraphs"]} == {
            s["id"]: s["decision"] for s in document["subgraphs"]
        }


def with_footer(artifact: Path, file: Path, change) -> Path:
    """Copy an artifact with its footer's magic bytes and its header changed."""
    data = artifact.read_bytes()
    magic, offset, length, _ = FOOTER.unpack(data[-FOOTER.size :])
    magic, header = change(magic, json.loads(data[offset : offset + length]))
    body = json.dumps(header).encode()
    file.write_bytes(data[:offset] + body + FOOTER.pack(magic, offset, len(body), zlib.crc32(body)))
    return file


@pytest.mark.parametrize(("version", "advice"), [(0, COMPILE), (2, UPGRADE), (2**40, UPGRADE)])
def test_artifacts(artifact, tmp_path, version, advice):
    magic = MAGIC[:9] + version.to_bytes(7, "little")
    other = with_footer(artifact, tmp_path / "m.so", lambda _, header: (magic, header))
    expected = f"{other}: got an artifact of version {version}; expected 1. {advice}"
    for command in ("run", "explain", "doctor"):
        assert refused(command, other) == f"layoutsel: error: {expected}"


def test_an_artifact_without_what_was_added_later_runs(artifact, tmp_path):
    """Artifacts have had checksums, devices and places of weights since later versions."""

    def older(magic, header):
        del header["library"]
        for name in ("devices", "places", "readers", "features", "units", "fallback"):
            header.pop(name, None)
        for entry in header["weights"]:
            del entry["sha256"]
        return magic, header

    old = with_footer(artifact, tmp_path / "m.so", older)
    succeed("run", old)
    succeed("explain", old)


@pytest.mark.parametrize(("version", "advice"), [(2, COMPILE), (5, UPGRADE)])
def test_plans_of_artifacts(artifact, tmp_path, version, advice):
    def change(magic, header):
        return magic, {**header, "plan": {**header["plan"], "schema_version": version}}

    other = with_footer(artifact, tmp_path / "m.so", change)
    line = refused("explain", other)
    assert line.endswith(f"at $.schema_version: got {version}; expected 3 or 4. {advice}")
    succeed("run", other)


def test_machines(model, tmp_path):
    file = tmp_path / "machine.json"
    profile().save(file)
    assert json.loads(file.read_text())["schema_version"] == 2
    assert MachineProfile.load(file) == profile()
    newer = edited(file, tmp_path / "newer.json", schema_version=3, clouds=7)
    line = refused("plan", model, "--machine", newer)
    assert line.endswith(f"newer.json: at $.schema_version: got 3; expected 1 or 2. {UPGRADE}")


@pytest.mark.parametrize(("version", "advice"), [(0, PROFILE), (2, UPGRADE)])
def test_data_sets(tmp_path, version, advice):
    file = tmp_path / "log.jsonl.xz"
    write_archive(Dataset(samples=samples(2)), file)
    first, *rest = lzma.decompress(file.read_bytes()).splitlines(keepends=True)
    header = json.dumps({**json.loads(first), "version": version}) + "\n"
    file.write_bytes(lzma.compress(header.encode() + b"".join(rest)))
    expected = f"{file}: got a data set of version {version}; expected 1. {advice}"
    for command in (("train", file, "-o", tmp_path / "made"), ("evaluate", file)):
        assert refused(*command) == f"layoutsel: error: {expected}"


def test_stores(tmp_path):
    file = tmp_path / "log.sqlite"
    store_file.connect(file).close()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    line = refused("train", file, "-o", tmp_path / "made")
    assert line.endswith(f"{file}: got measurements of version 2; expected 1. {UPGRADE}")


@pytest.mark.parametrize(
    ("changed", "got", "advice"),
    [
        ({"format_version": 1}, r"\$\.format_version: got 1; expected 3", TRAIN),
        ({"format_version": 4, "colour": 1}, r"\$\.format_version: got 4; expected 3", UPGRADE),
        ({"features_version": 3}, r"\$\.features_version: got 3; expected \d+", TRAIN),
        ({"features_version": 99}, r"\$\.features_version: got 99; expected \d+", UPGRADE),
        ({"features": ["flops"]}, r"cost model of 1 features; expected the \d+ features of", TRAIN),
    ],
)
def test_cost_models(model, tmp_path, changed, got, advice):
    folder = tmp_path / "model"
    shutil.copytree(PRETRAINED, folder)
    edited(folder / "model.json", folder / "model.json", **changed)
    line = refused("plan", model, "--cost-model", folder)
    assert re.search(got, line)
    assert str(folder / "model.json") in line
    assert line.endswith(f". {advice}")


@pytest.mark.parametrize(("version", "advice"), [(1, MEASURE), (3, UPGRADE)])
def test_results(tmp_path, version, advice):
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"schema_version": version, "bundle": "0"}))
    line = refused("profile", "--import", file, "--cache", tmp_path / "cache.sqlite")
    assert line.endswith(f"{file}: got results of version {version}; expected 2. {advice}")


@pytest.mark.parametrize(("version", "advice"), [(1, BUNDLE), (3, UPGRADE)])
def test_bundles(tmp_path, capsys, version, advice):
    bundle = bundle_of(tmp_path, schema_version=version)
    assert measure([str(bundle), "-o", str(tmp_path / "results.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f"{bundle}: got a bundle of version {version}; expected 2. {advice}")


def test_every_advice_names_a_command_that_exists():
    commands = set(
        re.findall(r"'layoutsel (\w+) ", " ".join((PLAN, COMPILE, TRAIN, PROFILE, BUNDLE)))
    )
    assert len(commands) == 5
    assert commands <= {command.name for command in app.registered_commands}
