"""``layoutsel doctor``: capabilities of this machine and installation, and missing parts."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from layoutsel.cli.doctor_devices import examine_devices, shown
from layoutsel.cli.options import CacheOption, JsonFlag
from layoutsel.report import terminal

SCHEMA_VERSION = 1
"""Version of the JSON output."""

ArtifactArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[ARTIFACT]",
        help="Compiled model to verify, instead of examining the machine.",
        show_default=False,
    ),
]
ForgetFlag = Annotated[
    bool,
    typer.Option(
        "--forget-failures",
        help="Forget failed measurements, so that their candidates are tried again.",
    ),
]

REQUIRED = (
    "layoutsel",
    "apache-tvm",
    "apache-tvm-ffi",
    "onnx",
    "onnxscript",
    "numpy",
    "scipy",
    "typer",
    "rich",
)
"""Packages that layoutsel needs."""
OPTIONAL = {
    "onnxruntime": "results are verified against slow unmodified TVM, and `bench` cannot compare; "
    "pip install 'layoutsel[bench]'",
    "openvino": "`bench` cannot compare with it; pip install 'layoutsel[bench]'",
    "onnxruntime-gpu": "",
    "onednn-cpu-gomp": "the unit onednn is off; pip install onednn-cpu-gomp",
}
"""Optional packages, with the consequence of their absence."""

TOOLS = {
    "g++": "compiled models cannot be saved; install it (Debian: apt install g++)",
    "dot": "`explain --dot` writes no SVG; install it (Debian: apt install graphviz)",
}
"""Optional tools, with the consequence of their absence."""
ALTERNATIVES = {"g++": ("g++", "clang++", "c++"), "dot": ("dot",)}
"""Programs that provide each tool."""


def doctor(
    artifact: ArtifactArgument = None,
    forget_failures: ForgetFlag = False,
    cache: CacheOption = None,
    json: JsonFlag = False,
) -> None:
    """Report machine, units, versions, caches and missing parts; fails if no unit is available.

    With an ARTIFACT, compare its code and weights with their checksums, without loading it.
    """
    if forget_failures:
        _forget_failures(cache, as_json=json)
        return
    if artifact is not None:
        _show_artifact(artifact, as_json=json)
        return
    report = examine()
    if json:
        terminal.show_json(report)
    else:
        _show(report)
    if not any(unit["available"] for unit in report["units"].values()):
        raise typer.Exit(1)


def _show_artifact(path: Path, *, as_json: bool) -> None:
    from layoutsel.runtime.loading import check_whole

    found = check_whole(path)
    if as_json:
        terminal.show_json({"schema_version": SCHEMA_VERSION, "artifact": str(path), **vars(found)})
        return
    sizes = f"{found.code_bytes:,} bytes of code and {found.weight_bytes:,} bytes of weights"
    told = f", except {found.unchecked} parts without a checksum" if found.unchecked else ""
    terminal.show_text(f"{path} is intact: {sizes} are as they were written{told}")


def _forget_failures(cache: Path | None, *, as_json: bool) -> None:
    from layoutsel.cost.store import default_path, forget_failures

    path = cache or default_path()
    count = forget_failures(path)
    if as_json:
        report = {"schema_version": SCHEMA_VERSION, "measurements": str(path), "forgotten": count}
        terminal.show_json(report)
        return
    terminal.show_text(f"{count:,} failures forgotten in {path}: their candidates are tried again")


def examine() -> dict[str, Any]:
    """Collect everything that ``doctor`` prints, as JSON data."""
    from layoutsel.device.machine import this_machine

    machine = this_machine()
    units = _units()
    tools = {name: _which(name) for name in TOOLS}
    packages = {name: _version(name) for name in (*REQUIRED, *OPTIONAL)}
    return {
        "schema_version": SCHEMA_VERSION,
        "machine": {
            "cpu": machine.cpu,
            "cores": machine.cores,
            "memory_gib": machine.memory_gib,
            "isa": list(machine.isa),
            "cache_bytes": dict(machine.caches),
            "fingerprint": machine.fingerprint,
            "system": platform.platform(),
            "python": f"{platform.python_version()} ({sys.executable})",
        },
        "threads": _threads(machine.cores),
        "units": units,
        "target": _target(),
        "packages": packages,
        "devices": examine_devices(),
        "native": _native(units),
        "tools": tools,
        "caches": _caches(),
        "cost_model": _cost_model(machine.fingerprint, machine.cores),
        "missing": _missing(units, packages, tools),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _which(tool: str) -> str | None:
    return next((path for name in ALTERNATIVES[tool] if (path := shutil.which(name))), None)


def _threads(cores: int) -> dict[str, Any]:
    names = (
        "OMP_NUM_THREADS",
        "TVM_NUM_THREADS",
        "OMP_WAIT_POLICY",
        "GOMP_SPINCOUNT",
        "KMP_BLOCKTIME",
    )
    return {
        "default": cores,
        "hardware": os.cpu_count(),
        "environment": {name: os.environ[name] for name in names if name in os.environ},
    }


def _units() -> dict[str, dict[str, Any]]:
    from layoutsel.units.base import units

    found = {}
    for name, unit in units().items():
        reason = unit.unavailable()
        found[name] = {"available": reason is None, "reason": reason}
    return found


def _target() -> str:
    from tvm_passes.cpu import host_target

    return str(host_target())


def _native(units: dict[str, dict[str, Any]]) -> dict[str, str]:
    from tvm_passes.onednn import plugin
    from tvm_passes.opencl.plugin import devices

    found = devices()
    known = units.get("onednn", {}).get("available")
    return {
        **({"oneDNN": plugin.version()} if known else {}),
        "OpenCL": ", ".join(found) or "no device",
    }


def _caches() -> dict[str, Any]:
    from layoutsel.cost.store import default_path
    from layoutsel.tuning.database import default_folder

    path = default_path()
    size = path.stat().st_size if path.exists() else 0
    peaks = [str(file) for file in sorted(path.parent.glob("*peaks-*.json"))]
    tuning = str(default_folder())
    return {"measurements": str(path), "bytes": size, "peaks": peaks, "tuning": tuning}


def _cost_model(fingerprint: str, threads: int) -> dict[str, Any]:
    """Version of the shipped cost model, and its relation to this machine with all cores."""
    from layoutsel.cost.adapt import adaptation_path
    from layoutsel.cost.learned import LearnedModel
    from tvm_passes.errors import LayoutselError

    try:
        model = LearnedModel.load()
    except LayoutselError as error:
        return {"version": None, "problem": str(error), "trained_here": False, "calibrated": False}
    machines = {name for part in model.card.parts.values() for name in part.machines}
    return {
        "version": model.version,
        "samples": sum(part.samples for part in model.card.parts.values()),
        "trained_here": f"{fingerprint}/{threads}" in machines,
        "calibrated": adaptation_path(fingerprint, threads).exists(),
    }


def _missing(units: dict[str, Any], packages: dict[str, Any], tools: dict[str, Any]) -> list[str]:
    lines = [
        f"unit {name}: {told['reason']}" for name, told in units.items() if not told["available"]
    ]
    lines += [f"{name} is not installed" for name in REQUIRED if packages[name] is None]
    lines += [
        f"{name} is not installed: {loss}"
        for name, loss in OPTIONAL.items()
        if loss and packages[name] is None and not _stands_in(name)
    ]
    lines += [
        f"{name} is not on PATH: {loss}" for name, loss in TOOLS.items() if tools[name] is None
    ]
    return lines


def _told(model: dict[str, Any]) -> str:
    if model["version"] is None:
        return str(model["problem"])
    known = "trained on this machine" if model["trained_here"] else "has not seen this machine"
    advice = (
        "" if model["trained_here"] or model["calibrated"] else "; `layoutsel calibrate` adapts it"
    )
    calibrated = ", calibrated to it" if model["calibrated"] else ""
    return f"{model['version']}, {model['samples']:,} samples; {known}{calibrated}{advice}"


def _stands_in(package: str) -> bool:
    """True if another package provides the same module."""
    substitutes = {"onnxruntime": ("onnxruntime-gpu",)}
    return any(_version(name) for name in substitutes.get(package, ()))


def _show(report: dict[str, Any]) -> None:
    from layoutsel.report.plan_tables import new_table

    machine, threads, caches = report["machine"], report["threads"], report["caches"]
    table = new_table("", "")
    table.show_header = False
    table.add_row(
        "machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
    )
    table.add_row("fingerprint", machine["fingerprint"])
    table.add_row("system", machine["system"])
    table.add_row("Python", machine["python"])
    table.add_row("instruction sets", " ".join(machine["isa"]) or "none that matter here")
    sizes = ", ".join(
        f"{level} {size >> 10:,} KiB" for level, size in machine["cache_bytes"].items()
    )
    table.add_row("caches", sizes)
    environment = "".join(f", {name}={value}" for name, value in threads["environment"].items())
    table.add_row("threads", f"{threads['default']} of {threads['hardware']}{environment}")
    table.add_row("target", report["target"])
    for name, unit in report["units"].items():
        table.add_row(
            f"unit {name}", "available" if unit["available"] else f"unavailable: {unit['reason']}"
        )
    for name, device in report["devices"].items():
        table.add_row(f"device {name}", shown(device))
    for name, found in {**report["packages"], **report["native"]}.items():
        if found or OPTIONAL.get(name, "required"):
            table.add_row(name, found or "not installed")
    for name, path in report["tools"].items():
        table.add_row(name, path or "not found")
    table.add_row("cost model", _told(report["cost_model"]))
    table.add_row(
        "measurements",
        f"{caches['measurements']} ({caches['bytes'] >> 10:,} KiB)",
    )
    table.add_row("tuning records", caches["tuning"])
    terminal.show(table)
    terminal.show_text("")
    for line in report["missing"] or ["nothing is missing"]:
        terminal.show_text(line if line == "nothing is missing" else f"missing: {line}")
