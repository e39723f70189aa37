"""Writing of wheels from finished files, without a build system."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from layoutsel.core.files import replacing


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """Name, contents and metadata of a wheel."""

    name: str
    """Name in the form of file names, such as ``layoutsel_measure``."""
    version: str
    """Version number."""
    summary: str
    """Description in one line."""
    platforms: tuple[str, ...]
    """Platform tags, such as ``manylinux_2_28_x86_64``."""
    requires: tuple[str, ...]
    """Dependencies with their versions."""
    scripts: Mapping[str, str]
    """Entry-point function of each command."""
    files: Mapping[str, bytes]
    """Contents by path below ``site-packages``."""
    licenses: Mapping[str, bytes]
    """Texts of the licences by file name."""

    @property
    def filename(self) -> str:
        """File name that installers expect."""
        return f"{self.name}-{self.version}-py3-none-{'.'.join(self.platforms)}.whl"

    def write(self, folder: Path) -> Path:
        """Write the wheel atomically and without dates, so that equal wheels are equal files.

        Raises
        ------
        WriteError
            If the file cannot be written.
        """
        path = folder / self.filename
        with (
            replacing(path) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, content in self._members():
                member = zipfile.ZipInfo(name)
                member.external_attr = 0o644 << 16
                archive.writestr(member, content, zipfile.ZIP_DEFLATED)
        return path

    def _members(self) -> Iterator[tuple[str, bytes]]:
        """Paths and contents of all members: files, metadata, then the record of checksums."""
        folder = f"{self.name}-{self.version}.dist-info"
        members = dict(sorted(self.files.items()))
        members |= {f"{folder}/licenses/{name}": text for name, text in self.licenses.items()}
        members |= {f"{folder}/{name}": text.encode() for name, text in self._metadata().items()}
        yield from members.items()
        record = "".join(f"{name},{_digest(c)},{len(c)}\n" for name, c in members.items())
        yield f"{folder}/RECORD", f"{record}{folder}/RECORD,,\n".encode()

    def _metadata(self) -> dict[str, str]:
        tags = "".join(f"Tag: py3-none-{name}\n" for name in self.platforms)
        requires = "".join(f"Requires-Dist: {requirement}\n" for requirement in self.requires)
        scripts = "".join(f"{name} = {function}\n" for name, function in self.scripts.items())
        return {
            "METADATA": f"Metadata-Version: 2.1\nName: {self.name.replace('_', '-')}\n"
            f"Version: {self.version}\nSummary: {self.summary}\nLicense: Apache-2.0\n"
            f"Requires-Python: >=3.10\n{requires}",
            "WHEEL": f"Wheel-Version: 1.0\nGenerator: layoutsel\nRoot-Is-Purelib: false\n{tags}",
            "entry_points.txt": f"[console_scripts]\n{scripts}",
        }


def _digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return f"sha256={digest}"
