"""Bundle files: tar archives of a manifest, the files it names, and their SHA-256 checksums.

The checksum file is in the format of ``sha256sum -c``.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from layoutsel import documents
from layoutsel.core.file_versions import expected_version
from layoutsel.device.manifest import SCHEMA_VERSION, Manifest
from tvm_passes.errors import LayoutselError

SUMS, MANIFEST = "SHA256SUMS", "bundle.json"
"""First members of every bundle, in this order."""
_NAME = re.compile(r"(data/|lib/)?[\w][\w.-]*")
"""Legal member names; they cannot lead out of the folder that a bundle is unpacked into."""
_RENEW = "Bundle the model again with 'layoutsel bundle MODEL -o FILE'"
"""Advice on a bundle that is too old to be read."""
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
"""Line of the checksum file: checksum and member."""


class BundleError(LayoutselError):
    """A file that is not a bundle, or a damaged one."""


@dataclass(frozen=True)
class Bundle:
    """A bundle, unpacked and checked."""

    folder: Path
    """Temporary folder with the unpacked members."""
    manifest: Manifest
    """Parsed ``bundle.json``."""
    digest: str
    """SHA-256 of the manifest, which lists the checksum of every other member."""


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """Unpack and check a bundle; its folder exists until the block ends.

    Raises
    ------
    BundleError
        If the file is not a bundle, truncated, damaged, or of another version.
    """
    with tempfile.TemporaryDirectory(prefix="layoutsel-") as name:
        folder = Path(name)
        try:
            _unpack(path, folder)
        except (tarfile.TarError, EOFError) as error:
            raise BundleError(
                f"{path}: not a bundle, or truncated ({error}); expected a file that "
                "`layoutsel bundle` wrote: copy it again"
            ) from error
        except OSError as error:
            raise BundleError(f"cannot unpack {path}: {error.strerror or error}") from error
        found = _checked(path, folder)
        yield Bundle(folder, _manifest(path, folder), found[MANIFEST])


def _unpack(path: Path, folder: Path) -> None:
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is None or not _NAME.fullmatch(member.name):
                raise BundleError(f"{path}: not a bundle: unexpected member {member.name!r}")
            target = folder / member.name
            target.parent.mkdir(exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file)


def _checked(path: Path, folder: Path) -> Mapping[str, str]:
    """Checksums of the members, after comparing them with those of the archive."""
    stated = folder / SUMS
    if not stated.is_file():
        raise BundleError(f"{path}: not a bundle: expected a member {SUMS}")
    lines = [_LINE.fullmatch(line) for line in stated.read_text("ascii", "replace").splitlines()]
    sums = {match[2]: match[1] for match in lines if match}
    present = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    wrong = sorted(present - {SUMS} ^ set(sums)) or [
        name for name in sums if sha256(folder / name) != sums[name]
    ]
    if wrong or MANIFEST not in sums or not all(lines):
        what = wrong[0] if wrong else SUMS
        raise BundleError(
            f"{path} is damaged: {what} is missing or fails its checksum; copy it again"
        )
    return sums


def _manifest(path: Path, folder: Path) -> Manifest:
    document = documents.load_json(folder / MANIFEST)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if type(version) is int and version != SCHEMA_VERSION:
        expected = expected_version(version, (SCHEMA_VERSION,), _RENEW)
        raise BundleError(f"{path}: got a bundle of version {version}; expected {expected}")
    return documents.from_json(Manifest, document, file=f"{path}:{MANIFEST}")


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
