"""Damaged artifacts: what is always noticed, and what is noticed where a user asks."""

from __future__ import annotations

import json
import shutil
import zlib

import numpy as np
import pytest
from small_models import convolution, image

import layoutsel
import layoutsel.device
from layoutsel.device.artifact_header import FOOTER, MAGIC, ArtifactError, read_header
from layoutsel.device.artifact_parts import verify
from tests.cli.command import refused, succeed


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = layoutsel.optimize(convolution(), cost="roofline", verify_speed=False, units=["cpu"])
    return model.save(tmp_path_factory.mktemp("artifact") / "model.so")


@pytest.fixture
def artifact(saved, tmp_path):
    """A copy to damage."""
    return shutil.copy(saved, tmp_path / "model.so")


def with_header(path, change) -> None:
    """Let `change` write into the header, and make its checksum anew, as an attacker or a faulty tool may."""
    data = path.read_bytes()
    _, offset, length, _ = FOOTER.unpack(data[-FOOTER.size :])
    header = json.loads(data[offset : offset + length])
    body = json.dumps(change(header) or header).encode()
    footer = FOOTER.pack(MAGIC, offset, len(body), zlib.crc32(body))
    path.unlink()  # a loaded one is mapped
    path.write_bytes(data[:offset] + body + footer)


def flip(path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_a_whole_one(artifact):
    found = verify(artifact, read_header(artifact))
    assert found.weight_bytes >= 8 * 8 * 3 * 3 * 4
    assert found.code_bytes > 10_000
    assert found.unchecked == 0
    for load in (layoutsel.load, layoutsel.device.load):
        result = load(artifact, verify=True)(image())
        np.testing.assert_array_equal(np.from_dlpack(result), layoutsel.load(artifact)(image()))


@pytest.mark.parametrize("part", ["first", "middle", "last"])
@pytest.mark.parametrize("kind", ["weights", "code"])
def test_a_flipped_bit_is_found(artifact, kind, part):
    header = read_header(artifact)
    entry, name = header["library"], "its code"
    if kind == "weights":
        entry, name = header["weights"][-1], f"its weight {len(header['weights']) - 1} "
    nbytes = entry.get("bytes") or 4 * int(np.prod(entry["shape"]))
    flip(artifact, entry["offset"] + {"first": 0, "middle": nbytes // 2, "last": nbytes - 1}[part])
    for load in (layoutsel.load, layoutsel.device.load):
        with pytest.raises(ArtifactError, match=f"is damaged: {name}.*fails its checksum"):
            load(artifact, verify=True)


def change_of(*path, value):
    def change(header):
        *where, last = path
        for key in where:
            header = header[key]
        header[last] = value

    return change


def removed(key):
    return lambda header: header.pop(key) and None


WRONG = {
    "offset negative": change_of("weights", 0, "offset", value=-4096),
    "offset beyond": change_of("weights", 0, "offset", value=1 << 40),
    "offset of many digits": change_of("weights", 0, "offset", value=10**4000),
    "offset no number": change_of("weights", 0, "offset", value="4096"),
    "offset a fraction": change_of("weights", 0, "offset", value=4096.0),
    "offset true": change_of("weights", 0, "offset", value=True),
    "shape too large": change_of("weights", 0, "shape", value=[1 << 40]),
    "shape overflowing": change_of("weights", 0, "shape", value=[1 << 62, 1 << 62]),
    "shape negative": change_of("weights", 0, "shape", value=[-8, -8]),
    "shape no list": change_of("weights", 0, "shape", value=576),
    "shape of many axes": change_of("weights", 0, "shape", value=[1] * 10_000),
    "type unknown": change_of("weights", 0, "dtype", value="float31x"),
    "type no text": change_of("weights", 0, "dtype", value=None),
    "weight no object": change_of("weights", 0, value=[]),
    "weights missing": removed("weights"),
    "weights no list": change_of("weights", value={}),
    "places too few": change_of("places", value=["llvm"] * 9),
    "places unknown": change_of("places", 0, value="fpga"),
    "devices unknown": change_of("devices", value=["fpga"]),
    "threads zero": change_of("threads", value=0),
    "threads too many": change_of("threads", value=10**9),
    "threads no number": change_of("threads", value="two"),
    "inputs missing": removed("inputs"),
    "input without a name": change_of("inputs", 0, "name", value=None),
    "outputs no list": change_of("outputs", value=None),
    "features no list": change_of("features", value=7),
    "units of numbers": change_of("units", value=[7]),
    "readers no list": change_of("readers", value="s0"),
    "plan no object": change_of("plan", value=[]),
    "code beyond": change_of("library", "bytes", value=1 << 50),
    "code no object": change_of("library", value=7),
    "fallback no object": change_of("fallback", value="model"),
    "fallback without weights": change_of("fallback", value={"threads": 1}),
    "fallback with another": change_of("fallback", value={"fallback": {}}),
    "no object": lambda _header: [1, 2],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_entries_are_refused_by_every_loader(artifact, wrong):
    with_header(artifact, WRONG[wrong])
    for load in (layoutsel.load, layoutsel.device.load):
        with pytest.raises(ArtifactError, match="is damaged") as refusal:
            load(artifact)
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("where", ["front", "weights", "header"])
@pytest.mark.parametrize("count", [-1, 1, 4096])
def test_a_size_that_changed_is_always_noticed(artifact, where, count):
    data = artifact.read_bytes()
    header = read_header(artifact)
    _, offset, _, _ = FOOTER.unpack(data[-FOOTER.size :])
    place = {"front": 100, "weights": header["weights"][0]["offset"] + 8, "header": offset + 5}[
        where
    ]
    changed = (
        data[:place] + b"\0" * count + data[place:]
        if count > 0
        else data[:place] + data[place - count :]
    )
    artifact.write_bytes(changed)
    for load in (layoutsel.load, layoutsel.device.load):
        with pytest.raises(ArtifactError, match="is damaged"):
            load(artifact)


def test_older_artifacts_load(artifact, caplog):
    """They have no checksums of weights, and may lack those of code."""

    def older(header):
        for entry in header["weights"]:
            del entry["sha256"]
        del header["library"]

    wanted = layoutsel.load(artifact)(image())
    with_header(artifact, older)
    np.testing.assert_array_equal(layoutsel.load(artifact)(image()), wanted)
    assert not caplog.records
    np.testing.assert_array_equal(layoutsel.load(artifact, verify=True)(image()), wanted)
    assert "parts have no checksum" in caplog.text


def test_doctor_of_an_artifact(artifact):
    assert "is intact" in succeed("doctor", str(artifact))
    told = json.loads(succeed("doctor", str(artifact), "--json"))
    assert told["unchecked"] == 0
    assert told["weight_bytes"] > 0
    flip(artifact, read_header(artifact)["weights"][0]["offset"])
    assert "fails its checksum" in refused("doctor", str(artifact))
    assert "cannot read" in refused("doctor", str(artifact.with_name("none.so")))
