"""Fallback to the host's units if a device is missing or fails later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from layoutsel.errors import DeviceError

if TYPE_CHECKING:
    from layoutsel.compile.session import Session
    from layoutsel.runtime.compiled import CompiledModel

logger = logging.getLogger(__name__)


def with_fallback(
    session: Session,
    build: Callable[[Session], CompiledModel],
    build_on_host: Callable[[Session], CompiledModel] | None = None,
) -> CompiledModel:
    """Build a model, and one of the host's units as a fallback if the session asks for it.

    Parameters
    ----------
    session
        Session of the model.
    build
        Function that builds a model for a session.
    build_on_host
        Function that builds the model of the host's units; by default `build`.

    Raises
    ------
    DeviceError
        If a device fails and the session has no fallback.
    """
    build_on_host = build_on_host or build
    try:
        model = build(session)
    except DeviceError as error:
        if session.options.fallback is None:
            raise
        logger.warning("%s; the model is built for the host's units alone", error.what)
        return build_on_host(session.on_host())
    if session.options.fallback is not None and model.uses_devices:
        model.fall_back_to(build_on_host(session.on_host()))
    return model
