"""Text for people's eyes. File names are made safe to show: any byte but ``/`` and NUL may be in one, escapes included."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def valid_utf8(text: str) -> str:
    r"""Text that can be encoded: a byte of a name that is not UTF-8 becomes ``\xNN``, as `backslashreplace` writes it.

    The other way round is not possible in general: a name may hold a backslash of its own.
    """
    return _SURROGATE.sub(_escape_surrogate, text)


def encodable(value: Any) -> Any:
    """A record with every text in it made `valid_utf8`."""
    if isinstance(value, str):
        return valid_utf8(value)
    if isinstance(value, dict):
        return {key: encodable(part) for key, part in value.items()}
    return [encodable(part) for part in value] if isinstance(value, list) else value


def printable(text: str) -> str:
    r"""Text for a terminal: control, format and direction marks become escapes like ``\n`` or ``\u202e``."""
    return "".join(_escape(char) if unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" else char
                   for char in valid_utf8(text))  # fmt: skip


def spreadsheet_cell(text: str) -> str:
    """Text for CSV: an apostrophe goes before what a spreadsheet would run as a formula."""
    text = valid_utf8(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def clock_time(seconds: float) -> str:
    """``m:ss.d``, with hours in front when there are any.

    >>> clock_time(83.26)
    '1:23.3'
    """
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{rest / 10:04.1f}"
    return f"{hours}:{minutes:02}:{clock}" if hours else f"{minutes}:{clock}"


def _escape_surrogate(match: re.Match[str]) -> str:
    value = ord(match[0])
    return f"\\x{value - 0xDC00:02x}" if 0xDC80 <= value <= 0xDCFF else f"\\u{value:04x}"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
