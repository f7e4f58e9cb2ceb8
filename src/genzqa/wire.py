"""How a program and its processes that work on strangers' files talk: a JSON message, followed by the blocks of bytes it announces.

Nothing is pickled: what comes from a process that handles strangers' files is read as plain data, even if such a file has
taken the process over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from genzqa import errors
from genzqa.errors import CorruptInputError, InputError

Message: TypeAlias = dict[str, Any]
Pipe: TypeAlias = "Connection[Any, Any]"

_MOST_JSON, _MOST_BLOCK = 16 << 20, 256 << 20  # bytes
_INPUT_ERRORS = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, InputError)
}  # fmt: skip


def send(pipe: Pipe, message: Message, blocks: Sequence[bytes | memoryview] = ()) -> None:
    """Send one message and its blocks.

    Raises:
        OSError: The other side is gone.
    """
    pipe.send_bytes(json.dumps(message | {"blocks": len(blocks)}, allow_nan=False).encode("ascii"))
    for block in blocks:
        pipe.send_bytes(block)


def receive(pipe: Pipe) -> tuple[Message, list[bytes]]:
    """Receive one message and its blocks.

    Raises:
        EOFError, OSError: The other side is gone, or sends more than it may.
        ValueError: What it sends is no message.
    """
    message = json.loads(pipe.recv_bytes(_MOST_JSON))
    if not isinstance(message, dict) or not isinstance(message.get("blocks"), int) or not 0 <= message["blocks"] <= 4:
        raise ValueError("not a message")
    return cast("Message", message), [pipe.recv_bytes(_MOST_BLOCK) for _ in range(message["blocks"])]


def error_message(error: InputError) -> Message:
    """The error as a message, without its subject: that is a path that nobody outside shall see."""
    return {"error": {"code": error.code, "reason": error.reason, "hint": error.hint}}


def error_of(message: Message, name: str) -> InputError:
    """The error of a message, about the file of this name."""
    error = message["error"]
    kind = _INPUT_ERRORS.get(error["code"], CorruptInputError)
    return kind(str(error["reason"]), subject=name, hint=str(error["hint"]))


def array_of(block: bytes, shape: Sequence[int], kind: type[np.float32] | type[np.uint8]) -> npt.NDArray[Any]:
    """A block as an array of its own memory.

    Raises:
        ValueError: If its length is not that of the shape, or a value is not finite.
    """
    if len(block) != math.prod(shape) * np.dtype(kind).itemsize:
        raise ValueError("a block of the wrong length")
    array = np.frombuffer(block, kind).reshape(shape).copy()
    if kind is np.float32 and not np.isfinite(array).all():
        raise ValueError("a block that is not all numbers")
    return array
