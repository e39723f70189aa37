"""The wheel for a device: the runner with TVM's runtime, without TVM's compiler and Python package."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layoutsel import __version__
from tvm_passes.errors import LayoutselError
from tvm_passes.native import find_plugin
from tvm_passes.onednn.plugin import onednn_library
from tvm_passes.runtime_library import BESIDE, VERSION_FILE, runtime_library

NAME = "layoutsel_measure"
MOST_BYTES = 64 << 20
"""What a device may be asked to hold: this wheel unpacked, and the only package that it needs."""
EXTRAS = ("onednn",)
"""Units whose libraries are packed where they are asked for."""

_REQUIRED, _OPTIONAL = "libtvm_runtime.so", ("libtvm_runtime_cuda.so",)
_FFI = "apache-tvm-ffi"
_CLOSURE = """
import importlib, json, pkgutil, sys
import layoutsel.ondevice as runner
for module in pkgutil.iter_modules(runner.__path__, runner.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
ours = {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ("layoutsel", "tvm_passes")}
heavy = [name for name in ("tvm", "typer", "rich", "scipy", "onnx") if name in sys.modules]
print(json.dumps([ours, heavy]))
"""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """TVM's runtime libraries of one platform."""

    files: Mapping[str, bytes]
    version: str
    platforms: tuple[str, ...]
    """As wheels name them, such as ``manylinux_2_28_x86_64``."""

    @property
    def is_ours(self) -> bool:
        """Whether what was built here runs there."""
        return any(name.endswith(f"_{platform.machine()}") for name in self.platforms)


@dataclass(frozen=True, kw_only=True)
class Kit:
    """A wheel that was written."""

    path: Path
    unpacked_bytes: int
    """With ``tvm_ffi``."""
    without: tuple[str, ...]
    """What was left out, and why."""


def write_kit(folder: Path, tvm_wheel: Path | None = None, extras: Sequence[str] = ()) -> Kit:
    """Write the wheel into `folder`, under the name that installers expect.

    Parameters
    ----------
    tvm_wheel
        A wheel of apache-tvm for the device's platform; the installed one where None.
    extras
        Some of :data:`EXTRAS`.

    Raises
    ------
    LayoutselError
        If a library is missing, or the whole is larger than a device may be asked to hold.
    """
    runtime = _installed() if tvm_wheel is None else _of_wheel(tvm_wheel)
    native, without = _plugins(runtime, extras)
    lib = f"{BESIDE.parent.name}/{BESIDE.name}"
    files = {
        **_sources(),
        **{f"{lib}/{name}": content for name, content in runtime.files.items()},
        f"{lib}/{VERSION_FILE}": f"{runtime.version}\n".encode(),
        **native,
    }
    size = sum(map(len, files.values())) + _ffi_bytes()
    if size > MOST_BYTES:
        raise LayoutselError(
            f"the kit would take {size / 2**20:.0f} MiB with {_FFI}; expected at most {MOST_BYTES >> 20}: install "
            "binutils, whose `strip` makes libraries smaller, or leave out --with"
        )
    path = folder / f"{NAME}-{__version__}-py3-none-{'.'.join(runtime.platforms)}.whl"
    _write_wheel(path, {**files, **_metadata(files, runtime.platforms)})
    return Kit(path=path, unpacked_bytes=size, without=tuple(without))


def _installed() -> Runtime:
    folder = runtime_library(_REQUIRED).parent
    names = [_REQUIRED, *(name for name in _OPTIONAL if (folder / name).exists())]
    distribution = importlib.metadata.distribution("apache-tvm")
    return Runtime(
        files={name: (folder / name).read_bytes() for name in names},
        version=distribution.version,
        platforms=_platforms(distribution.read_text("WHEEL") or ""),
    )


def _of_wheel(wheel: Path) -> Runtime:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = archive.namelist()
            described = next(name for name in members if name.endswith(".dist-info/WHEEL"))
            names = [_REQUIRED, *(n for n in _OPTIONAL if f"tvm/lib/{n}" in members)]
            return Runtime(
                files={name: archive.read(f"tvm/lib/{name}") for name in names},
                version=described.split("/")[0].removesuffix(".dist-info").split("-")[1],
                platforms=_platforms(archive.read(described).decode()),
            )
    except (OSError, zipfile.BadZipFile, KeyError, StopIteration, IndexError) as error:
        raise LayoutselError(
            f"--tvm-wheel {wheel}: not a wheel of apache-tvm that can be read ({error}); expected one for the device's "
            "platform, of the version that is installed here"
        ) from error


def _platforms(described: str) -> tuple[str, ...]:
    tags = re.findall(r"^Tag: \S+-(\S+)$", described, flags=re.MULTILINE)
    return tuple(dict.fromkeys(tags)) or (f"linux_{platform.machine()}",)


def _plugins(runtime: Runtime, extras: Sequence[str]) -> tuple[dict[str, bytes], list[str]]:
    """Libraries of ours, and of units that were asked for; what is left out, and why."""
    if not runtime.is_ours:
        if extras:
            raise LayoutselError(
                f"--with {extras[0]}: its libraries are for {platform.machine()}; expected a kit for "
                "this platform"
            )
        return {}, [f"the OpenCL run time: it was built for {platform.machine()}"]
    wanted = {"opencl": "liblayoutsel_opencl.so"}
    wanted |= {unit: f"liblayoutsel_{unit}.so" for unit in extras}
    files, without = {}, []
    for unit, name in wanted.items():
        plugin = find_plugin(name, BESIDE.parent / unit)
        if plugin is not None:
            files[f"tvm_passes/{unit}/{name}"] = _stripped(plugin)
        elif unit in extras:
            raise LayoutselError(f"--with {unit}: {name} was not built; install layoutsel again")
        else:
            without.append(f"the run time of {unit}: {name} was not built here")
    if "onednn" in extras:
        library = onednn_library()
        if library is None:
            raise LayoutselError("--with onednn: its library was not found")
        files[f"tvm_passes/onednn/{library.name}"] = _stripped(library)
    return files, without


def _stripped(library: Path) -> bytes:
    """A library without symbols that only debuggers want, where `strip` is at hand."""
    tool = shutil.which("strip")
    if tool is None:
        return library.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / library.name
        done = subprocess.run(
            [tool, "--strip-unneeded", "-o", copy, library], capture_output=True, check=False
        )
        return (copy if done.returncode == 0 else library).read_bytes()


def _sources() -> dict[str, bytes]:
    """What importing the runner imports of ours; an interpreter of its own tells."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", _CLOSURE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    modules, heavy = json.loads(done.stdout.splitlines()[-1])
    assert not heavy, f"the runner imports {heavy}"
    files = {}
    for name, file in modules.items():
        stem = name.replace(".", "/")
        arcname = f"{stem}/__init__.py" if Path(file).name == "__init__.py" else f"{stem}.py"
        files[arcname] = Path(file).read_bytes()
    main = Path(modules["layoutsel.ondevice"]).with_name("__main__.py")
    return {**files, "layoutsel/ondevice/__main__.py": main.read_bytes()}


def _ffi_bytes() -> int:
    files = importlib.metadata.files(_FFI) or []
    located = (Path(str(file.locate())) for file in files if "__pycache__" not in file.parts)
    return sum(file.stat().st_size for file in located if file.exists())


def _metadata(files: Mapping[str, bytes], platforms: Sequence[str]) -> dict[str, bytes]:
    folder = f"{NAME}-{__version__}.dist-info"
    tags = "".join(f"Tag: py3-none-{name}\n" for name in platforms)
    ffi = importlib.metadata.version(_FFI)
    texts = {
        "METADATA": f"Metadata-Version: 2.1\nName: {NAME.replace('_', '-')}\nVersion: {__version__}\n"
        "Summary: Runs what layoutsel bundles, on a device with TVM's runtime alone\n"
        f"License: Apache-2.0\nRequires-Python: >=3.10\nRequires-Dist: {_FFI}=={ffi}\n",
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: layoutsel {__version__}\nRoot-Is-Purelib: false\n{tags}",
        "entry_points.txt": "[console_scripts]\nlayoutsel-measure = layoutsel.ondevice.command:main\n",
    }
    described = {f"{folder}/{name}": text.encode() for name, text in texts.items()}
    record = "".join(_recorded({**files, **described})) + f"{folder}/RECORD,,\n"
    return {**described, f"{folder}/RECORD": record.encode()}


def _recorded(files: Mapping[str, bytes]) -> Iterator[str]:
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        yield f"{name},sha256={digest},{len(content)}\n"


def _write_wheel(path: Path, files: Mapping[str, bytes]) -> None:
    """Without dates, so that equal kits are equal files; in one step."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files, key=lambda name: (".dist-info/" in name, name)):
                member = zipfile.ZipInfo(name)
                member.external_attr = 0o644 << 16
                archive.writestr(member, files[name], zipfile.ZIP_DEFLATED)
        temporary.replace(path)
    except OSError as error:
        raise LayoutselError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
