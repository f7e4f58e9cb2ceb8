"""Timestamps of recordings that were joined byte by byte: they begin again in the middle of the file."""

from __future__ import annotations

_JOINT = 0.5
"""Seconds by which timestamps must fall back to be those of another recording, and not only a little wrong."""


class Joints:
    """Places timestamps on one time axis: another recording goes on where the one before ended.

    Attributes:
        found: Whether there was a joint.
    """

    def __init__(self) -> None:
        self._shift = 0.0
        self._last: float | None = None
        self.found = False

    def place(self, time: float, end: float, order: float | None) -> float:
        """Where a timestamp belongs.

        Args:
            time: When it is shown as the file says, in seconds.
            end: Where what was placed so far ends.
            order: What should only ever increase: its time if it comes as it is shown, its decoding time otherwise, which
                may be missing.
        """
        if order is not None:
            if self._last is not None and order > self._last:
                self._shift = 0.0  # there was no joint, but a single wrong timestamp
            elif self._last is not None and order + self._shift < self._last - _JOINT:
                self._shift, self.found = end - time, True
            self._last = order + self._shift
        return time + self._shift
