"""Going on without a device that is missing, or that fails later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from layoutsel.errors import DeviceError
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.compile.session import Session
    from layoutsel.runtime.compiled import CompiledModel

logger = logging.getLogger(__name__)

CPU = "cpu"
FALLBACKS = (CPU,)
"""What to go on with: units of the host, the CPU if no other is named."""


def check_fallback(name: str | None) -> None:
    """Refuse what nothing can go on with; raises :class:`LayoutselError`."""
    if name is not None and name not in FALLBACKS:
        raise LayoutselError(f"fallback {name!r}: expected {' or '.join(FALLBACKS)}")


def present(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Units to choose from, and those of `names` whose device is missing: they are left out with a warning."""
    from layoutsel.units.base import missing_devices

    missing = missing_devices(names)
    for name, reason in missing.items():
        logger.warning("unit %r is left out, with the pins to it: %s", name, reason)
    return tuple(name for name in names if name not in missing) or (CPU,), tuple(missing)


def with_fallback(
    session: Session,
    build: Callable[[Session], CompiledModel],
    build_on_host: Callable[[Session], CompiledModel] | None = None,
) -> CompiledModel:
    """What `build` makes; where it uses devices and the session has a fallback, with a model of the host's units.

    Parameters
    ----------
    build_on_host
        Makes that model; `build` does where absent.
    """
    build_on_host = build_on_host or build
    try:
        model = build(session)
    except DeviceError as error:
        if session.fallback is None:
            raise
        logger.warning("%s; the model is built for the host's units alone", error.what)
        return build_on_host(session.on_host())
    if session.fallback is not None and model.uses_devices:
        model.fall_back_to(build_on_host(session.on_host()))
    return model
