"""One fact about how an input was read that a user should know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """A fact that did not stop the work but may explain its result.

    Attributes:
        code: Stable snake_case name for programs, such as ``"alpha_over_grey"``.
        text: One plain sentence for people.
    """

    code: str
    text: str
