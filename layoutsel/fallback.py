"""Going on without a device that is missing, or that fails later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.runtime.compiled import CompiledModel
    from layoutsel.session import Session

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
    session: Session, model: CompiledModel, build: Callable[[Session], CompiledModel]
) -> CompiledModel:
    """`model`; where it uses devices, and shall go on without them, with what `build` makes of the host's units."""
    if session.fallback is not None and model.uses_devices:
        model.fall_back_to(build(session.on_host()))
    return model
