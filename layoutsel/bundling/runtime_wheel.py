"""Wheel for devices: the runner with TVM's runtime, without TVM's compiler and Python package."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layoutsel import __version__
from layoutsel.bundling.wheel import Wheel
from layoutsel.core.processes import ProcessError, run_limited
from tvm_passes.backends import own_backends
from tvm_passes.errors import LayoutselError
from tvm_passes.native import find_plugin
from tvm_passes.onednn.plugin import onednn_library
from tvm_passes.runtime_library import BESIDE, VERSION_FILE, runtime_library

logger = logging.getLogger(__name__)

NAME = "layoutsel_measure"
"""Name of the wheel."""
MOST_BYTES = 64 << 20
"""Largest size of the unpacked wheel and its only dependency on a device, bytes."""
_OWNERS = {name: backend.package for name, backend in own_backends().items() if backend.package}
"""Packages of the extras' libraries."""
EXTRAS = tuple(_OWNERS)
"""Units whose libraries are packed on request."""

_TVM_LICENSES = ("tvm/LICENSE", "tvm/NOTICE", "tvm/licenses/LICENSE.builtin_fp16.txt")
"""Licences in TVM's wheel."""
_REQUIRED, _OPTIONAL = "libtvm_runtime.so", ("libtvm_runtime_cuda.so",)
"""Libraries in TVM's wheel."""
_FFI = "apache-tvm-ffi"
"""Package that the wheel depends on."""
_TOOL_LIMIT_S = 120.0
"""Time limit of a tool, seconds."""
_CLOSURE = """
import importlib, json, pkgutil, sys
import layoutsel.device as runner
for module in pkgutil.iter_modules(runner.__path__, runner.__name__ + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
ours = ("layoutsel", "tvm_passes")
files = {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ours}
heavy = [name for name in ("tvm", "typer", "rich", "scipy", "onnx") if name in sys.modules]
print(json.dumps([files, heavy]))
"""
"""Program that prints the files which importing the runner loads."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """TVM's runtime libraries for one platform."""

    libraries: Mapping[str, bytes]
    """Contents by file name."""
    licenses: Mapping[str, bytes]
    """Texts of the licences by file name."""
    version: str
    """Version of TVM."""
    platforms: tuple[str, ...]
    """Platform tags of the wheel."""

    @property
    def is_ours(self) -> bool:
        """True if plugins that were built on this machine run on the platform."""
        return any(name.endswith(f"_{platform.machine()}") for name in self.platforms)


@dataclass(frozen=True, kw_only=True)
class Kit:
    """A written wheel."""

    path: Path
    """File of the wheel."""
    unpacked_bytes: int
    """Unpacked size including ``tvm_ffi``, bytes."""
    without: tuple[str, ...]
    """Omitted parts, with reasons."""


def write_kit(folder: Path, tvm_wheel: Path | None = None, extras: Sequence[str] = ()) -> Kit:
    """Write the wheel into a folder, with the file name that installers expect.

    Parameters
    ----------
    folder
        Folder for the wheel.
    tvm_wheel
        A wheel of apache-tvm for the device's platform; the installed package if None.
    extras
        Units from :data:`EXTRAS` to pack.

    Raises
    ------
    LayoutselError
        If a library is missing, or the wheel exceeds :data:`MOST_BYTES`.
    """
    runtime = _installed() if tvm_wheel is None else _of_wheel(tvm_wheel)
    plugins, without = _plugins(runtime, extras)
    lib = f"{BESIDE.parent.name}/{BESIDE.name}"
    files = {
        **_sources(),
        **{f"{lib}/{name}": content for name, content in runtime.libraries.items()},
        f"{lib}/{VERSION_FILE}": f"{runtime.version}\n".encode(),
        **plugins,
    }
    size = sum(map(len, files.values())) + _ffi_bytes()
    if size > MOST_BYTES:
        raise LayoutselError(
            f"the kit would take {size / 2**20:.0f} MiB with {_FFI}; expected at most "
            f"{MOST_BYTES >> 20}: install binutils, whose `strip` makes libraries smaller, "
            "or leave out --with"
        )
    wheel = Wheel(
        name=NAME,
        version=__version__,
        summary="Runs what layoutsel bundles, on a device with TVM's runtime alone",
        platforms=runtime.platforms,
        requires=(f"{_FFI}=={importlib.metadata.version(_FFI)}",),
        scripts={"layoutsel-measure": "layoutsel.device.command:main"},
        files=files,
        licenses={**runtime.licenses, **_licenses("layoutsel", *(_OWNERS[e] for e in extras))},
    )
    return Kit(path=wheel.write(folder), unpacked_bytes=size, without=tuple(without))


def _installed() -> Runtime:
    distribution = importlib.metadata.distribution("apache-tvm")
    package = runtime_library(_REQUIRED).parent.parent
    described = distribution.read_text("WHEEL") or ""

    def read(name: str) -> bytes | None:
        file = package.parent / name
        return file.read_bytes() if file.exists() else None

    return _runtime(read, distribution.version, described)


def _of_wheel(wheel: Path) -> Runtime:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = set(archive.namelist())
            described = next(name for name in members if name.endswith(".dist-info/WHEEL"))
            return _runtime(
                lambda name: archive.read(name) if name in members else None,
                described.split("/")[0].removesuffix(".dist-info").split("-")[1],
                archive.read(described).decode(),
            )
    except (OSError, zipfile.BadZipFile, StopIteration, IndexError) as error:
        raise LayoutselError(
            f"--tvm-wheel {wheel}: not a readable wheel ({error}); expected one of apache-tvm for "
            "the device's platform"
        ) from error


def _runtime(read: Callable[[str], bytes | None], version: str, described: str) -> Runtime:
    """Runtime from an installation or a wheel, whose files `read` returns."""
    wanted = {name: f"tvm/lib/{name}" for name in (_REQUIRED, *_OPTIONAL)}
    found = {name: content for name, path in wanted.items() if (content := read(path))}
    if _REQUIRED not in found:
        raise LayoutselError(
            f"apache-tvm {version}: got no {_REQUIRED}; expected TVM 0.27 or later"
        )
    ours = importlib.metadata.version("apache-tvm")
    if version != ours:
        raise LayoutselError(
            f"got apache-tvm {version}; expected {ours}, which bundles are built with"
        )
    texts = {f"tvm.{Path(path).name}": read(path) for path in _TVM_LICENSES}
    return Runtime(
        libraries=found,
        licenses={name: text for name, text in texts.items() if text},
        version=version,
        platforms=_platforms(described),
    )


def _platforms(described: str) -> tuple[str, ...]:
    tags = re.findall(r"^Tag: \S+-(\S+)$", described, flags=re.MULTILINE)
    return tuple(dict.fromkeys(tags)) or (f"linux_{platform.machine()}",)


def _plugins(runtime: Runtime, extras: Sequence[str]) -> tuple[dict[str, bytes], list[str]]:
    """Plugins for the device and for requested units; also the omitted parts with reasons."""
    if not runtime.is_ours:
        if extras:
            raise LayoutselError(
                f"--with {extras[0]}: its libraries are for {platform.machine()}; expected a kit "
                "for this platform"
            )
        return {}, [f"the OpenCL run time: it was built for {platform.machine()}"]
    wanted = {
        unit: f"{backend.plugin}.so"
        for unit, backend in own_backends().items()
        if backend.plugin and (unit in extras or not backend.package)
    }
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
    """Contents of a library without debug symbols, if `strip` is installed."""
    tool = shutil.which("strip")
    if tool is None:
        return library.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / library.name
        command: list[str | Path] = [tool, "--strip-unneeded", "-o", copy, library]
        try:
            run_limited(command, what="cannot strip", limit_s=_TOOL_LIMIT_S)
        except ProcessError as error:
            logger.warning("%s is packed with its symbols: %s", library.name, error)
            copy = library
        return copy.read_bytes()


def _sources() -> dict[str, bytes]:
    """Files of layoutsel's modules that the runner imports, found in a separate process."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    printed = run_limited(
        [sys.executable, "-c", _CLOSURE],
        what="cannot find what the runner imports",
        limit_s=_TOOL_LIMIT_S,
        environment={"PYTHONPATH": path},
    )
    modules, heavy = json.loads(printed.splitlines()[-1])
    assert not heavy, f"the runner imports {heavy}"
    files = {}
    for name, file in modules.items():
        stem = name.replace(".", "/")
        arcname = f"{stem}/__init__.py" if Path(file).name == "__init__.py" else f"{stem}.py"
        files[arcname] = Path(file).read_bytes()
    main = Path(modules["layoutsel.device"]).with_name("__main__.py")
    return {**files, "layoutsel/device/__main__.py": main.read_bytes()}


def _ffi_bytes() -> int:
    files = importlib.metadata.files(_FFI) or []
    located = (Path(str(file.locate())) for file in files if "__pycache__" not in file.parts)
    return sum(file.stat().st_size for file in located if file.exists())


def _licenses(*packages: str) -> dict[str, bytes]:
    """Licences of installed packages whose code is packed."""
    return {
        f"{package}.{file.name}": Path(str(file.locate())).read_bytes()
        for package in packages
        for file in importlib.metadata.files(package) or ()
        if ".dist-info" in str(file) and "LICENSE" in file.name
    }
