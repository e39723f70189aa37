"""Geometry of sliding windows along one spatial axis: the taps of each window inside the input."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

SPARSE = 4
"""Maximum ratio of the windows' total span to the input's extent; an axis beyond it is sparse."""


@dataclass(frozen=True, kw_only=True)
class WindowAxis:
    """Windows along one axis: output `o` reads ``o * stride - before + tap * dilation``."""

    size: int
    """Extent of the input."""
    kernel: int
    """Number of taps of a window."""
    stride: int
    """Distance between the starts of two consecutive windows, elements."""
    dilation: int
    """Distance between two taps, elements."""
    before: int
    """Padding before the input."""
    after: int
    """Padding after the input that average pooling counts."""
    outputs: int
    """Number of windows."""

    def with_outputs(self, outputs: int) -> WindowAxis:
        """Return the same windows, `outputs` of them."""
        return replace(self, outputs=outputs)

    @property
    def starts(self) -> np.ndarray:
        """Position of each window's first tap."""
        return np.arange(self.outputs, dtype="int64") * self.stride - self.before

    def _first_tap_from(self, position: int) -> np.ndarray:
        """Return the first tap of each window at or after `position`, limited to the window."""
        return np.clip(-((self.starts - position) // self.dilation), 0, self.kernel)

    @property
    def taps(self) -> tuple[np.ndarray, np.ndarray]:
        """First tap of each window inside the input, and the first one after the input."""
        return self._first_tap_from(0), self._first_tap_from(self.size)

    def counts(self, *, with_padding: bool) -> np.ndarray:
        """Count the taps of each window inside the input, or inside the input and its padding."""
        if with_padding:
            return self._first_tap_from(self.size + self.after)
        first, end = self.taps
        return end - first

    @property
    def live(self) -> slice:
        """Outputs from the first to the last window that meets the input; empty if none does.

        The slice starts early enough that its first window does not begin inside the input: padding
        cannot be negative.
        """
        met = np.flatnonzero(self.counts(with_padding=False))
        if not met.size:
            return slice(0, 0)
        return slice(min(int(met[0]), self.before // self.stride), int(met[-1]) + 1)

    @property
    def kept(self) -> slice:
        """Taps that a smaller window needs for the same outputs.

        These are the taps that meet the input in some window. One more tap stays on a side whose
        padding would become negative. A window that never meets the input keeps one tap.
        """
        first, end = self.taps
        meets = end > first
        begin = min(self.before // self.dilation, self.kernel - 1)
        stop = begin + 1
        if meets.any():
            begin, stop = min(begin, int(first[meets].min())), int(end[meets].max())
        # The next window must not fit: otherwise the shape rule of pooling would add an output.
        beyond = self.size + self.before - self.outputs * self.stride
        stop = max(stop, -(-beyond // self.dilation) + 1)
        return slice(begin, min(stop, self.kernel))

    @property
    def clipped(self) -> WindowAxis:
        """Windows with the same outputs, but only the taps of :attr:`kept` and their padding."""
        kept = self.kept
        taken = replace(
            self, kernel=kept.stop - kept.start, before=self.before - kept.start * self.dilation
        )
        stride = self.stride
        if self.outputs == 1:
            stride = min(stride, max(1, 1 - taken.overhang))
        return replace(taken, stride=stride, after=max(0, taken.overhang))

    @property
    def overhang(self) -> int:
        """Distance from the input's end to the last window's; negative if that ends inside."""
        reach = (self.outputs - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        return reach - self.before - self.size

    @property
    def is_sparse(self) -> bool:
        """True if the windows together span mostly padding, even when clipped."""
        return self.before + self.size + max(self.overhang, 0) > SPARSE * self.size

    @property
    def positions(self) -> np.ndarray:
        """Elements that each window reads, (outputs, taps); the index `size` denotes padding."""
        first, end = self.taps
        tap = first[:, None] + np.arange(max(int((end - first).max(initial=0)), 1))
        read = self.starts[:, None] + tap * self.dilation
        return np.where(tap < end[:, None], read, self.size)


def pooled_extent(axis: WindowAxis, *, ceil_mode: bool) -> int:
    """Count the windows of a pooling as ONNX Runtime does; ignores `axis.outputs`.

    Without `ceil_mode`, the quotient is rounded towards zero: a window larger than the padded input
    still counts once. With it, a last window that starts after the input is omitted.
    """
    room = axis.size + axis.before + axis.after - (axis.kernel - 1) * axis.dilation - 1
    if not ceil_mode:
        return max(room // axis.stride if room >= 0 else -(-room // axis.stride), -1) + 1
    outputs = -(-room // axis.stride) + 1
    return outputs - 1 if (outputs - 1) * axis.stride >= axis.size + axis.before else outputs
