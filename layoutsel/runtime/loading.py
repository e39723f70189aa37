"""Loading of compiled models from their files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from layoutsel.core.choices import check_fallback
from layoutsel.device.artifact_header import check_name, devices_of, read_header
from layoutsel.device.artifact_parts import Verified
from layoutsel.device.artifact_parts import verify as verify_parts
from layoutsel.device.requirements import check_devices, check_features, check_units
from layoutsel.device.virtual_machine import load_library
from layoutsel.errors import DeviceError
from layoutsel.runtime.artifact import Artifact, extracted, read
from layoutsel.runtime.compiled import CompiledModel
from tvm_passes import onednn
from tvm_passes.errors import LayoutselError, UnitUnavailable
from tvm_passes.runtime_library import load_tvm_runtime

logger = logging.getLogger(__name__)


def load(path: str | Path, *, fallback: str | None = None, verify: bool = False) -> CompiledModel:
    """Open a saved model in any process, without planning or compiling.

    An artifact contains native code with this process's rights: load only files from a trusted
    source. If a device is missing, the artifact's fallback model of host units is opened, if any.

    Parameters
    ----------
    path
        File that :meth:`CompiledModel.save` wrote.
    fallback
        ``cpu`` to reject a model that needs a device and has no fallback.
    verify
        True to compare all code and weights with their checksums. Size and header are always
        checked.

    Raises
    ------
    ArtifactError
        If the file is missing, not an artifact, or damaged.
    UnitUnavailable
        If this machine lacks an instruction set or a unit that the code needs.
    DeviceError
        If a device has too little memory for the weights.
    """
    path = Path(path)
    check_fallback(fallback)
    opened = read(path)
    check_name(path)
    if verify:
        check_whole(path)
    check_features(str(path), opened.header.get("features", ()))
    if fallback is not None and _needs_device(opened.header):
        raise LayoutselError(
            f"{path} needs a device and has no fallback; compile it with --fallback {fallback}"
        )
    try:
        return _opened(path, opened, path)
    except (DeviceError, UnitUnavailable) as error:
        if opened.fallback is None:
            raise
        what = error.what if isinstance(error, DeviceError) else str(error)
        logger.warning("%s; the fallback model of host units is loaded instead", what)
        return _opened_other(path, opened.fallback)


def check_whole(path: Path) -> Verified:
    """Compare code and weights with their checksums; raises :class:`ArtifactError`."""
    found = verify_parts(path, read_header(path))
    if found.unchecked:
        logger.warning(
            "%s: %d parts have no checksum, as in artifacts of older versions: not verified",
            path,
            found.unchecked,
        )
    return found


def _opened(path: Path, opened: Artifact, library: Path) -> CompiledModel:
    header = opened.header
    advice = "; a model compiled with --fallback cpu runs without it"
    advice = advice if _needs_device(header) else ""
    check_units(str(path), header.get("units", ()), advice)
    check_devices(str(path), devices_of(header), advice)
    load_tvm_runtime()
    onednn.available()  # kernels look up its thread pool when they are loaded
    module = load_library(library, devices_of(header))
    other = opened.fallback
    fallback = partial(_opened_other, path, other) if other is not None else None
    batches = {
        size: partial(_opened_other, path, one, f"its batches of {size}")
        for size, one in opened.batches.items()
    }
    return CompiledModel(
        module, opened.weights, dict(header), path, fallback=fallback, batches=batches
    )


def _opened_other(path: Path, opened: Artifact, what: str = "its fallback") -> CompiledModel:
    with extracted(opened, what) as library:
        return _opened(path, opened, library)


def _needs_device(header: Mapping[str, Any]) -> bool:
    return len(header.get("devices", ())) > 1 and "fallback" not in header
