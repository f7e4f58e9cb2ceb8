"""What worker processes do: make photos ready for the network without the model, and score videos with one of their own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from genzqa.batch.remote import fetched, is_url
from genzqa.errors import InputError
from genzqa.limits import Limits
from genzqa.media.video_sniff import is_video_file
from genzqa.scoring.prepare import PreparedPhoto, prepare_photo

if TYPE_CHECKING:
    from genzqa.scoring.scorer import Scorer

IS_VIDEO = "video"
"""In the place of a prepared photo: the input is a video, for the other kind of worker."""

Prepared: TypeAlias = "PreparedPhoto | str"


def photo_decoder(size: int, limits: Limits) -> Callable[[str], Prepared]:
    """The function that makes one photo ready, by its path or address; of a video it only says that it is one.

    Args:
        size: Side of the square that photos are resized to, in pixels.
        limits: What an input may be at most.
    """

    def decode(name: str) -> Prepared:
        with _source(name, limits) as source:
            if is_video_file(source):
                return IS_VIDEO
            return dataclasses.replace(prepare_photo(source, size, limits), name=name)

    return decode


def video_scorer(model: str, limits: Limits, offline: bool) -> Callable[[str], dict[str, Any]]:
    """The function that scores one video and gives its record; the model is loaded in the process that calls this."""
    from genzqa.scoring.scorer import load

    scorer: Scorer = load(model, limits=limits, offline=offline)

    def score(name: str) -> dict[str, Any]:
        with _source(name, limits) as source:
            return dataclasses.replace(scorer.score(source), input=name).to_dict()

    return score


@contextmanager
def _source(name: str, limits: Limits) -> Iterator[str | bytes]:
    """What the decoder takes; its errors name the input as the row does."""
    try:
        if is_url(name) and not os.path.lexists(name):
            with fetched(name, limits) as source:
                yield source
        else:
            yield name
    except InputError as error:
        raise type(error)(error.reason, subject=name, hint=error.hint) from error
