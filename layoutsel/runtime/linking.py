"""Shared libraries from compiled modules: object code, packed modules and the linker's work, with limits."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tvm_ffi

from layoutsel.core.processes import run_limited
from tvm_passes.errors import LayoutselError
from tvm_passes.freed_memory import give_back

_LINK_LIMIT_S = 300.0
_NEEDS_LINKING = ("c", "static_library")
"""Kinds of modules that cannot run as they are."""
_WHAT = "cannot link a shared library"


class Linked:
    """A shared library that has no name any more: a file that goes with this object.

    Parameters
    ----------
    file
        The library under its name, which may go then.
    """

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")

    def copy(self, path: Path) -> None:
        """Write it under a name."""
        shutil.copyfile(f"/proc/self/fd/{self._file.fileno()}", path)


def export_library(executable: Any, library: Path, *, compiler: str | None = None) -> None:
    """Link a compiled module into a shared library.

    Parameters
    ----------
    executable
        What ``tvm.compile`` gives, or a library that was linked of it.
    compiler
        The C++ compiler that links; this machine's if None.

    Raises
    ------
    LayoutselError
        If there is no room, or no compiler, or it fails or takes too long.
    """
    if isinstance(executable, Linked):
        with _explained():
            executable.copy(library)
        return
    link_of([executable].pop, library, compiler=compiler)


def link_of(take: Callable[[], Any], library: Path, *, compiler: str | None = None) -> None:
    """Link the compiled module that `take` gives; errors as of :func:`export_library`.

    Where nobody else holds the module, its memory goes back before the linker takes some.
    """
    orders: list[tuple[str, Sequence[str], Sequence[str]]] = []

    def later(target: str, objects: Sequence[str], options: Sequence[str] = ()) -> None:
        orders.append((target, objects, options))

    executable = take()
    with _explained(), _workspace(getattr(executable, "mod", executable)) as folder:
        executable.export_library(str(library), workspace_dir=folder, fcompile=later)
        del executable
        give_back()
        for order in orders:
            _link(compiler, *order)


def object_code(module: Any, functions: Sequence[str]) -> Any:
    """Object code of a module of LLVM, to be linked with others; LLVM's memory can go back then.

    Parameters
    ----------
    functions
        Names of those that it defines.

    Raises
    ------
    LayoutselError
        If there is no room.
    """
    import tvm

    with _explained(), _workspace(module) as folder:
        file = str(Path(folder) / "lib0.o")
        module.write_to_file(file)
        return tvm.runtime.load_static_library(file, functions)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Errors of the system as errors of linking."""
    try:
        yield
    except OSError as error:
        raise LayoutselError(f"{_WHAT}: {error.strerror or error}; make room for it") from error


def runnable(executable: Any) -> Any:
    """What ``executable.jit()`` gives; what has to be linked for that is linked as by :func:`export_library`."""
    import tvm

    if not executable.mod._collect_from_import_tree(lambda part: part.kind in _NEEDS_LINKING):
        return executable.jit()
    with tempfile.TemporaryDirectory(prefix="layoutsel-") as folder:
        library = Path(folder) / "library.so"
        export_library(executable, library)
        return tvm.runtime.load_module(str(library))


@contextlib.contextmanager
def _workspace(module: Any) -> Iterator[str]:
    """A folder whose object files lie in memory: where a disk is full, LLVM would end the whole process."""
    parts = module._collect_dso_modules()
    _check_file_size(module, parts)
    names = (*(f"lib{index}.o" for index in range(len(parts))), "devc.o")
    del module, parts  # their memory may go back while this goes on
    with contextlib.ExitStack() as files:
        folder = files.enter_context(tempfile.TemporaryDirectory(prefix="layoutsel-"))
        for name in names:
            descriptor = os.memfd_create(name)
            files.callback(os.close, descriptor)
            (Path(folder) / name).symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
        yield folder


def _check_file_size(module: Any, parts: Sequence[Any]) -> None:
    """Raise where this process may not write files of such a size, in memory either."""
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most == resource.RLIM_INFINITY:
        return
    code = [part for part in parts if part.kind == "llvm"]
    target = code[0].get_function("_get_target_string")() if code else '{"kind": "llvm"}'
    if module.imports:
        pack = tvm_ffi.get_global_func("runtime.ModulePackImportsToLLVM")
        code.append(pack(module, False, target, ""))
    # Assembly takes more room than the object code that is made of it.
    if any(len(part.inspect_source("asm")) > most for part in code):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _link(
    compiler: str | None, library: str, objects: Sequence[str], options: Sequence[str] = ()
) -> None:
    """Link as ``tvm.support.cc.create_shared`` does."""
    from tvm.support import cc

    tool = compiler or cc.get_cc()
    if tool is None:
        raise LayoutselError(f"{_WHAT}: got no C++ compiler; install one (Debian: g++)")
    command = [tool, "-shared", "-fPIC", "-o", library, *options, *objects]
    run_limited(command, what=_WHAT, limit_s=_LINK_LIMIT_S)
