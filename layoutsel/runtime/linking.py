"""Shared libraries from compiled modules: object code, packed modules and limited linking."""

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
"""Time limit of the linker, seconds."""
_NEEDS_LINKING = ("c", "static_library")
"""Kinds of modules that cannot run before they are linked."""
_WHAT = "cannot link a shared library"
"""Start of the error messages."""


class Linked:
    """A linked shared library without a file name; its disk space is freed with this object.

    Parameters
    ----------
    file
        File of the library, which may be removed afterwards.
    """

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")

    def copy(self, path: Path) -> None:
        """Write the library to a file."""
        shutil.copyfile(f"/proc/self/fd/{self._file.fileno()}", path)


def export_library(executable: Any, library: Path, *, compiler: str | None = None) -> None:
    """Link a compiled module into a shared library.

    Parameters
    ----------
    executable
        Result of ``tvm.compile``, or a library that was linked from it.
    library
        File to write.
    compiler
        C++ compiler that links; this machine's if None.

    Raises
    ------
    LayoutselError
        If the disk is full, there is no compiler, or linking fails or exceeds its time limit.
    """
    if isinstance(executable, Linked):
        with _explained():
            executable.copy(library)
        return
    link_of([executable].pop, library, compiler=compiler)


def link_of(take: Callable[[], Any], library: Path, *, compiler: str | None = None) -> None:
    """Link the compiled module that `take` returns; raises as :func:`export_library` does.

    If `take` returns the only reference, the module is freed before the linker needs memory.
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
    """Object code of an LLVM module, to be linked with others; LLVM's own memory can be freed.

    Parameters
    ----------
    module
        Module of kind ``llvm``.
    functions
        Names of the functions that it defines.

    Raises
    ------
    LayoutselError
        If the disk is full.
    """
    import tvm

    with _explained(), _workspace(module) as folder:
        file = str(Path(folder) / "lib0.o")
        module.write_to_file(file)
        return tvm.runtime.load_static_library(file, functions)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of the operating system into errors of linking."""
    try:
        yield
    except OSError as error:
        raise LayoutselError(f"{_WHAT}: {error.strerror or error}; make room for it") from error


def runnable(executable: Any) -> Any:
    """Result of ``executable.jit()``; modules that need linking are linked first."""
    import tvm

    if not executable.mod._collect_from_import_tree(lambda part: part.kind in _NEEDS_LINKING):
        return executable.jit()
    with tempfile.TemporaryDirectory(prefix="layoutsel-") as folder:
        library = Path(folder) / "library.so"
        export_library(executable, library)
        return tvm.runtime.load_module(str(library))


@contextlib.contextmanager
def _workspace(module: Any) -> Iterator[str]:
    """Temporary folder whose object files are in memory.

    LLVM aborts the whole process when it cannot write an object file to a full disk.
    """
    parts = module._collect_dso_modules()
    _check_file_size(module, parts)
    names = (*(f"lib{index}.o" for index in range(len(parts))), "devc.o")
    del module, parts  # allows their memory to be freed while the block runs
    with contextlib.ExitStack() as files:
        folder = files.enter_context(tempfile.TemporaryDirectory(prefix="layoutsel-"))
        for name in names:
            descriptor = os.memfd_create(name)
            files.callback(os.close, descriptor)
            (Path(folder) / name).symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
        yield folder


def _check_file_size(module: Any, parts: Sequence[Any]) -> None:
    """Raise OSError if the object files may exceed this process's limit of file sizes."""
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most == resource.RLIM_INFINITY:
        return
    code = [part for part in parts if part.kind == "llvm"]
    target = code[0].get_function("_get_target_string")() if code else '{"kind": "llvm"}'
    if module.imports:
        pack = tvm_ffi.get_global_func("runtime.ModulePackImportsToLLVM")
        code.append(pack(module, False, target, ""))
    # Assembly is longer than its object code, so this never lets a file through that is too large.
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
