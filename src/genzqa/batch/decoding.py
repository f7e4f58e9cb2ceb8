"""What worker processes do: make photos ready for the network without the model, and score videos with one of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from genzqa import errors
from genzqa.batch.remote import fetched, is_url
from genzqa.errors import GenzqaError
from genzqa.limits import Limits
from genzqa.media.prepare import PreparedPhoto, prepare_photo
from genzqa.media.video_sniff import is_video_file
from genzqa.notes import Note
from genzqa.wire import Message, array_of

if TYPE_CHECKING:
    from genzqa.engine.engine import EngineOptions
    from genzqa.scoring.scorer import Scorer

IS_VIDEO = "video"
"""In the place of a prepared photo: the input is a video, for the other kind of worker."""

Prepared: TypeAlias = "PreparedPhoto | str"


def photo_decoder(size: int, limits: Limits) -> Callable[[str], Prepared]:
    """The function that makes one photo ready, by its absolute path or its address; of a video it only says that it is one.

    Args:
        size: Side of the square that photos are resized to, in pixels.
        limits: What an input may be at most.
    """

    def decode(place: str) -> Prepared:
        with opened(place, limits) as source:
            if is_video_file(source):
                return IS_VIDEO
            return prepare_photo(source, size, limits=limits)

    return decode


def video_scorer(
    model: str, limits: Limits, offline: bool, options: EngineOptions | None = None
) -> Callable[[str], dict[str, Any]]:
    """The function that scores one video and gives its record; the model is loaded in the process that calls this."""
    from genzqa.scoring.scorer import load_as

    scorer: Scorer = load_as(model, options, limits=limits, offline=offline)

    def score(place: str) -> dict[str, Any]:
        with opened(place, limits) as source:
            return scorer.score(source).to_dict()

    return score


def packed(outcome: Any) -> tuple[Message, list[bytes]]:
    """What a process found, as plain data: a photo made ready, an error, or anything that JSON holds."""
    if isinstance(outcome, PreparedPhoto):
        facts = {name: getattr(outcome, name) for name in ("name", "width", "height", "seconds")}
        notes = [dataclasses.asdict(note) for note in outcome.notes]
        return {"photo": facts, "notes": notes, "size": len(outcome.pixels)}, [outcome.pixels.tobytes()]
    if isinstance(outcome, GenzqaError):
        told = {"reason": outcome.reason, "subject": outcome.subject, "hint": outcome.hint}
        return {"error": type(outcome).__name__, **told}, []
    return {"plain": outcome}, []


def unpacked(message: Message, blocks: list[bytes]) -> Any:
    """The reverse of `packed`.

    Raises:
        ValueError, KeyError, TypeError: If it is none of the three.
    """
    if "photo" in message:
        size = int(message["size"])
        notes = tuple(Note(str(note["code"]), str(note["text"])) for note in message["notes"])
        facts = message["photo"]
        pixels = array_of(blocks[0], (size, size, 3), np.float32) if blocks else None
        if pixels is None:
            raise ValueError("a photo without pixels")
        return PreparedPhoto(
            str(facts["name"]), int(facts["width"]), int(facts["height"]), notes, pixels, float(facts["seconds"])
        )
    if "error" in message:
        kind = getattr(errors, str(message["error"]), None)
        if not (isinstance(kind, type) and issubclass(kind, GenzqaError)):
            raise ValueError("no error of ours")
        return kind(str(message["reason"]), subject=str(message["subject"]), hint=str(message["hint"]))
    return message["plain"]


@contextmanager
def opened(place: str, limits: Limits) -> Iterator[str | bytes]:
    """What the decoder takes: a path, or what was fetched from an address.

    Results and errors are named by the one who asked, who knows what the user called it.
    """
    if is_url(place):
        with fetched(place, limits) as source:
            yield source
    else:
        yield place
