"""File systems that several machines may share: SQLite's write-ahead log does not work there."""

import pytest

from layoutsel.core import file_systems


@pytest.mark.parametrize(
    "kind", ["nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs", "fuse.rclone", "ext4", "fuseblk"]
)
def test_the_innermost_mount_decides(tmp_path, monkeypatch, kind):
    place = tmp_path / "a folder"
    mounts = tmp_path / "mounts"
    shown = str(place).replace(" ", "\\040")
    mounts.write_text(f"none / ext4 rw 0 0\nhost:/x {shown} {kind} rw 0 0\n")
    monkeypatch.setattr(file_systems, "_MOUNTS", mounts)
    assert file_systems.is_on_network(place / "m.sqlite") == (kind not in ("ext4", "fuseblk"))
    assert not file_systems.is_on_network(tmp_path / "m.sqlite")
