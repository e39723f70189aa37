"""Layouts with blocks of channels, which are the innermost axis."""

from __future__ import annotations

from typing import Any

from tvm_passes.layouts.entry import Layout


def in_blocks(block: int, **known: Any) -> Layout:
    """Make the layout with `block` channels innermost: ``(n, c / block, h, w, c % block)``."""
    return Layout(
        name=f"NCHW{block}c",
        to_physical=lambda n, c, h, w: (n, c // block, h, w, c % block),
        to_logical=lambda n, chunk, h, w, lane: (n, chunk * block + lane, h, w),
        rank=5,
        block=block,
        **known,
    )
