"""Import of a model with its large weights in files, so that memory holds only those in use."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from tvm.ir import IRModule

from layoutsel.compile.paging import Pages, paged
from layoutsel.model import ImportedModel, LoadedModel, Source, import_loaded, import_model, load
from layoutsel.references.stored_model import StoredModel, weight_bytes
from tvm_passes.freed_memory import give_back
from tvm_passes.limits import ImportLimits

logger = logging.getLogger(__name__)

STORED_BYTES = 16 << 20
"""Minimum bytes of weights for a file with the weights of the ONNX form."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """An imported model with the location of its weights."""

    model: ImportedModel
    """Imported network; large weights of its Relax form lie in the memory of :attr:`pages`."""
    stored: StoredModel | None
    """ONNX model with its large weights in a file; None if `model` holds them itself."""
    pages: Pages
    """Memory pages of the weights in the Relax form."""


def import_aside(
    source: Source,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    allow_external_links: bool = False,
    limits: ImportLimits | None = None,
) -> Imported:
    """Import `source`; parameters and errors as in :func:`layoutsel.model.import_model`."""
    stored = None
    if isinstance(source, IRModule):
        model = import_model(source, shapes=shapes, limits=limits)
    else:
        loaded, stored = _weights_aside(
            load(source, allow_external_links=allow_external_links, limits=limits)
        )
        give_back()
        model = import_loaded(loaded, shapes=shapes, limits=limits)
        del loaded
    model, pages = paged(model)
    pages.evict()
    return Imported(model=model, stored=stored, pages=pages)


def _weights_aside(loaded: LoadedModel) -> tuple[LoadedModel, StoredModel | None]:
    """Move the weights of `loaded` into a file, unless they are small or cannot be written."""
    if weight_bytes(loaded.proto) < STORED_BYTES:
        return loaded, None
    try:
        stored = StoredModel.of(loaded.proto)
    except OSError as error:
        logger.info("the weights stay in memory, as they cannot be written: %s", error)
        return loaded, None
    names = (name for name, _ in stored.names)
    weights = dict(zip(names, stored.file.arrays.mapped(), strict=True))
    return LoadedModel(name=loaded.name, proto=stored.skeleton, weights=weights), stored
