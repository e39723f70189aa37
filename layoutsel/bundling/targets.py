"""Targets from the command line, and the machine that they describe."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from tvm.target import Target, codegen

from tvm_passes import cuda
from tvm_passes.cpu import host_target
from tvm_passes.devices import DEVICE_TYPES, HOST
from tvm_passes.errors import LayoutselError
from tvm_passes.isa import EXTENSIONS
from tvm_passes.targets import CrossTarget

_EXAMPLE = "'llvm -mcpu=skylake-avx512', 'cuda -arch=sm_80' or TVM's JSON"
"""Examples of targets, for error messages."""


def machine_of_targets(texts: Sequence[str], threads: int | None) -> CrossTarget | None:
    """Make a machine from targets, at most one of each kind; None without targets.

    Without a CPU target, the CPU is this machine's.

    Parameters
    ----------
    texts
        Targets for :func:`parse_target`.
    threads
        Number of cores if the CPU target does not state it.

    Raises
    ------
    LayoutselError
        If a text is not a target, or the number of cores is unknown.
    """
    if not texts:
        return None
    targets: dict[str, Target] = {}
    for text in texts:
        target = parse_target(text)
        kind = str(target.kind.name)
        if kind not in DEVICE_TYPES:
            known = ", ".join(DEVICE_TYPES)
            raise LayoutselError(f"--target {text!r}: got kind {kind!r}; expected one of {known}")
        if kind in targets:
            raise LayoutselError(f"--target {text!r}: got a second target of kind {kind!r}")
        targets[kind] = target
    host = targets.pop(HOST, None)
    return CrossTarget(host=_with_cores(host, threads), devices=targets)


def _with_cores(host: Target | None, threads: int | None) -> Target:
    if host is None:
        return host_target()
    stated = host.attrs.get("num-cores")
    if stated is None and threads is None:
        raise LayoutselError(
            f"--target {host}: it does not say how many cores the machine has: add --threads N"
        )
    return Target({**dict(host.export()), "num-cores": int(stated or threads or 1)})


def parse_target(text: str) -> Target:
    """Parse TVM's JSON, or ``kind -name=value ...`` with features in ``-mattr`` after commas.

    Raises
    ------
    LayoutselError
        If the text has another form, or TVM rejects the target.
    """
    try:
        return Target(json.loads(text) if text.lstrip().startswith("{") else _words(text))
    except Exception as error:  # TVM's parsers raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LayoutselError(
            f"--target {text!r}: {reason}; expected something like {_EXAMPLE}"
        ) from error


def _words(text: str) -> dict[str, object]:
    kind, *options = text.split()
    described: dict[str, object] = {"kind": kind}
    for option in options:
        name, _, value = option.lstrip("-").partition("=")
        if not option.startswith("-") or not value:
            raise ValueError(f"got {option!r} in it, expected -name=value")
        if name == "mattr":
            described[name] = value.split(",")
        else:
            described[name] = int(value) if value.isdigit() else value
    return described


def check_compilers(machine: CrossTarget | None, compiler: str | None) -> None:
    """Check before compilation that a linker for the machine is installed.

    Raises
    ------
    LayoutselError
        Names the missing compiler and its Debian package.
    """
    if machine and "cuda" in machine.devices and (reason := cuda.uncompilable()):
        raise LayoutselError(f"cannot compile for CUDA: {reason}")
    if compiler is not None:
        if shutil.which(compiler) is None:
            package = Path(compiler).name.rpartition("-")
            raise LayoutselError(
                f"--cc {compiler}: there is no such compiler on PATH; install it "
                f"(Debian: {package[2]}-{package[0]})"
                if package[0]
                else f"--cc {compiler}: there is no such compiler on PATH"
            )
        return
    wanted = architecture(machine.host) if machine else platform.machine()
    if wanted != platform.machine():
        raise LayoutselError(
            f"linking for {wanted} needs a compiler for it: add --cc {wanted}-linux-gnu-g++ "
            f"(Debian: g++-{wanted.replace('_', '-')}-linux-gnu)"
        )
    if not any(shutil.which(tool) for tool in ("g++", "clang++", "c++")):
        raise LayoutselError(
            "a bundle's libraries are linked: got no C++ compiler on PATH; "
            "install one (Debian: g++)"
        )


def architecture(host: Target) -> str:
    """Processor architecture as ``uname -m`` prints it; this machine's if not stated."""
    triple = str(host.attrs.get("mtriple") or "")
    return triple.partition("-")[0] or platform.machine()


def features(host: Target) -> tuple[str, ...]:
    """Instruction-set extensions for code on `host`, by their names in Linux."""
    if architecture(host) != "x86_64":
        return ()
    return tuple(
        sorted(
            flag for flag, name in EXTENSIONS.items() if codegen.llvm_cpu_has_features(name, host)
        )
    )
