"""Writing of bundle files; equal bundles are equal files, as dates and owners are left out."""

from __future__ import annotations

import tarfile
from pathlib import Path

from layoutsel import documents
from layoutsel.core.files import replacing, write_text
from layoutsel.device.archive import MANIFEST, SUMS, sha256
from layoutsel.device.manifest import Manifest


def write_archive(folder: Path, manifest: Manifest, path: Path) -> None:
    """Write a bundle atomically from a folder of members.

    Parameters
    ----------
    folder
        Members; manifest and checksums are added.
    manifest
        Contents of ``bundle.json``.
    path
        File to write.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    documents.save(manifest, folder / MANIFEST)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [str(file.relative_to(folder)) for file in files]
    names = [MANIFEST, *(name for name in names if name not in (MANIFEST, SUMS))]
    sums = "".join(f"{sha256(folder / name)}  {name}\n" for name in names)
    write_text(folder / SUMS, sums)
    with (
        replacing(path) as file,
        tarfile.open(fileobj=file, mode="w:", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in (SUMS, *names):
            member = tarfile.TarInfo(name)
            member.size = (folder / name).stat().st_size
            with (folder / name).open("rb") as content:
                archive.addfile(member, content)
