"""Compiled models from their files."""

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
    """Open a saved model, in any process; nothing is planned or compiled.

    An artifact is native code, which runs with this process's rights: load only what you compiled yourself, or trust.
    Where a device is missing, the model of host units is opened that it was compiled with, if any.

    Parameters
    ----------
    path
        What :meth:`CompiledModel.save` wrote.
    fallback
        ``cpu``: refuse a model that needs a device and could not go on without it.
    verify
        Read all of the file, and refuse it where code or weights are not as they were written. Its size and header
        are always checked.

    Raises
    ------
    ArtifactError
        If the file is missing, none of ours or damaged.
    UnitUnavailable
        If this machine lacks an instruction set or a unit that the artifact was built for.
    DeviceError
        If a device has no room for the weights.
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
            f"{path} holds no model to go on with where a device fails; compile it with --fallback {fallback}"
        )
    try:
        return _opened(path, opened, path)
    except (DeviceError, UnitUnavailable) as error:
        if opened.fallback is None:
            raise
        what = error.what if isinstance(error, DeviceError) else str(error)
        logger.warning("%s; its model of host units is loaded instead", what)
        return _opened_fallback(path, opened.fallback)


def check_whole(path: Path) -> Verified:
    """Compare code and weights with their checksums; raises :class:`ArtifactError`."""
    found = verify_parts(path, read_header(path))
    if found.unchecked:
        logger.warning(
            "%s: %d of its parts have no checksum, as older versions wrote them: they are not verified",
            path,
            found.unchecked,
        )
    return found


def _opened(path: Path, opened: Artifact, library: Path) -> CompiledModel:
    header = opened.header
    advice = "; compiled with --fallback cpu, it would run without" if _needs_device(header) else ""
    check_units(str(path), header.get("units", ()), advice)
    check_devices(str(path), devices_of(header), advice)
    load_tvm_runtime()
    onednn.available()  # its thread pool, where there is one, must be in place before kernels are loaded
    module = load_library(library, devices_of(header))
    other = opened.fallback
    fallback = partial(_opened_fallback, path, other) if other is not None else None
    return CompiledModel(module, opened.weights, dict(header), path, fallback=fallback)


def _opened_fallback(path: Path, opened: Artifact) -> CompiledModel:
    with extracted(opened) as library:
        return _opened(path, opened, library)


def _needs_device(header: Mapping[str, Any]) -> bool:
    return len(header.get("devices", ())) > 1 and "fallback" not in header
