"""The demonstration of several exits, with a real load beside it."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ET

import pytest
from command import layoutsel, succeed

from layoutsel.exits import load


@pytest.mark.nightly
@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: layoutsel[train]"
)
def test_a_network_is_trained_certified_and_timed(tmp_path):
    printed = succeed(
        *("exits", "demo", "--data", "mnist1d", "--size", "tiny", "--static", "-o", tmp_path),
        run=layoutsel,
    )
    assert re.search(r"certified at confidence 0.95: at most 1 % of samples lose", printed)
    for title in ("without a load", "another process on the first core"):
        rows = printed.split(f"measured on test samples, {title}:")[1].split("\n\n")[0]
        names = [line.split("  ")[0] for line in rows.splitlines()[2:]]
        assert names[0] == "as compiled"
        # The trunk alone is the first row if it won the race.
        assert "trunk alone" in names or "kept: exits off" in printed
    pictures = [file for file in tmp_path.iterdir() if file.suffix == ".svg"]
    assert len(pictures) == 5
    for file in pictures:
        assert f"written {file}" in printed
        ET.parse(file)
    accuracy = (tmp_path / "accuracy.svg").read_text()
    for file in tmp_path.glob("static*.onnx"):
        assert f">{file.stem}</text>" in accuracy
    assert ">networks without exits</text>" in accuracy
    with load(tmp_path / "net.so") as model:
        assert model.exits[-1] == "final"
