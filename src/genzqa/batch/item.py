"""One input as it was listed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One input as it was listed.

    Attributes:
        input: Path or address; what the row is called.
        size: Bytes, None if unknown or missing.
        modified: Nanoseconds since 1970, None if unknown or missing.
        sha256: Of the content in hexadecimal digits, None unless asked for.
    """

    input: str
    size: int | None = None
    modified: int | None = None
    sha256: str | None = None
