"""Files appear whole or not at all, and a full disk is one clear error."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from layoutsel import documents
from layoutsel.benchmarking.compare import Row
from layoutsel.benchmarking.compare import save as save_rows
from layoutsel.bundling.wheel import Wheel
from layoutsel.bundling.write import write_archive as write_bundle
from layoutsel.core.files import WriteError, check_output, replacing, write_text
from layoutsel.cost.archive import write_archive as write_dataset
from layoutsel.cost.samples import Dataset
from layoutsel.device.artifact_header import LEAST_BYTES
from layoutsel.runtime import artifact


@contextmanager
def room(count):
    """No file of this process grows beyond `count` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def wheel():
    return Wheel(
        name="w", version="1", summary="", platforms=("any",), requires=(), scripts={}, licenses={},
        files={"a": os.urandom(20_000)},
    )  # fmt: skip


@pytest.fixture
def inputs(tmp_path) -> Path:
    """What the files are made of."""
    folder = tmp_path / "inputs"
    (folder / "content").mkdir(parents=True)
    (folder / "content" / "data").write_bytes(bytes(20_000))
    (folder / "library.so").write_bytes(b"\x7fELF")
    compiled(folder, folder / "original.so")
    return folder


def compiled(folder, path):
    part = artifact.ArtifactPart(
        library=folder / "library.so", weights=[np.zeros(5000, np.float32)], header={}
    )
    artifact.write(path, part)


WRITERS = {
    "plan.json": lambda _, path: documents.save(["x" * 10_000], path),
    "rows.json": lambda _, path: save_rows(
        path, [Row(model="m" * 10_000, engine="e", precision="f32", threads=1)]
    ),
    "data.jsonl.xz": lambda _, path: write_dataset(Dataset(samples=(), boundaries=()), path),
    "bundle.tar": lambda folder, path: write_bundle(folder / "content", {"a": 1}, path),
    "model.so": compiled,
    "copy.so": lambda folder, path: artifact.copy(folder / "original.so", path),
    "w-1-py3-none-any.whl": lambda _, path: wheel().write(path.parent),
    "text": lambda _, path: write_text(path, "x" * 10_000),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(tmp_path, inputs, name):
    path = tmp_path / "place" / name
    path.parent.mkdir()
    path.write_bytes(b"what was there before")
    most = 50 if name.endswith(".xz") else 9000
    with room(most), pytest.raises(WriteError, match="File too large") as caught:
        WRITERS[name](inputs, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"what was there before"
    assert [file.name for file in path.parent.iterdir()] == [name]
    WRITERS[name](inputs, path)
    assert path.read_bytes() != b"what was there before"
    assert [file.name for file in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_errors_of_the_disk(tmp_path, monkeypatch, code):
    def fail(*_arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WriteError, match=os.strerror(code)):
        write_text(tmp_path / "file", "text")
    assert not list(tmp_path.iterdir())


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    with contextlib.suppress(KeyError), replacing(tmp_path / "file") as stream:
        stream.write(b"half")
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_modes_are_the_callers(tmp_path, inputs, mask, mode):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "text", "x")
        documents.save([1], tmp_path / "document")
        compiled(inputs, tmp_path / "model.so")
    finally:
        os.umask(before)
    found = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ("text", "document")}
    assert set(found.values()) == {mode}
    assert (tmp_path / "model.so").stat().st_mode & 0o777 == 0o777 & ~mask


def test_the_mask_of_other_threads_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda _mask: pytest.fail("the umask is the whole process's"))
    documents.save([1], tmp_path / "document")
    threads = [
        threading.Thread(target=write_text, args=(tmp_path / "same", f"{i}" * 1000))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "same").read_text())) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["document", "same"]


def test_links_and_long_names(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "text"
    write_text(tmp_path / ("n" * 255), "text")
    assert (tmp_path / ("n" * 255)).read_text() == "text"


@pytest.mark.parametrize(
    ("name", "problem"),
    [("/dev/full", "a device"), ("/dev/null", "a device"), ("pipe", "a pipe"), (".", "a directory"),
     ("none/file", "no directory"), ("n" * 256, "name too long")],
)  # fmt: skip
def test_places_that_are_none(tmp_path, name, problem):
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name
    for action in (check_output, lambda path: write_text(path, "text")):
        with pytest.raises(WriteError, match=f"(?i){problem}"):
            action(path)
    assert [file.name for file in tmp_path.iterdir()] == ["pipe"]
    assert not Path("/dev/null").is_file()


def test_room_is_looked_for_before_the_work(tmp_path):
    with room(LEAST_BYTES - 1):
        check_output(tmp_path / "file")
        with pytest.raises(WriteError, match="File too large"):
            check_output(tmp_path / "file", LEAST_BYTES)
    assert not list(tmp_path.iterdir())
