"""The local engine: processes decode, this process scores, and neither waits for the other."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from genzqa.batch.decoding import IS_VIDEO, Prepared, photo_decoder, video_scorer
from genzqa.batch.item import Item
from genzqa.batch.remote import is_url
from genzqa.batch.workers import Workers
from genzqa.errors import InputError
from genzqa.limits import Limits
from genzqa.media.prepare import PreparedPhoto
from genzqa.media.video_sniff import named_kind
from genzqa.result import FailedResult

if TYPE_CHECKING:
    from genzqa.engine.engine import EngineOptions
    from genzqa.scoring.scorer import Scorer

_PHOTO_SECONDS = 300.0  # that a photo may take to be fetched and decoded
_VIDEOS_WAITING = 2


def default_processes() -> int:
    """How many processes decode: half the cores, for scoring needs the others, and eight at most."""
    return min(8, max(1, (os.cpu_count() or 1) // 2))


class LocalEngine:
    """Scores inputs with a bounded number of them in memory.

    Photos go to the model in the batches that `Scorer.score_many` would form of the same inputs, so they get the same scores.
    A video is decoded and scored in a process of its own, with a model of its own, which starts with the first one.

    Args:
        scorer: For photos.
        model: The scorer's name, for the process that scores videos.
        limits: What an input may be at most; the scorer's.
        batch_size: Photos scored together.
        processes: That decode photos.
        offline: Never open a connection to load the model.
        options: How the process that scores videos runs it.
    """

    def __init__(self, scorer: Scorer, model: str, limits: Limits, *, batch_size: int, processes: int,
                 offline: bool = False, options: EngineOptions | None = None) -> None:  # fmt: skip
        self._scorer, self._batch_size = scorer, batch_size
        self._ahead = 2 * batch_size + processes
        size = scorer.config.preprocessing.size
        self._photos: Workers[str, Prepared] = Workers(
            processes, photo_decoder, (size, limits), patience=_PHOTO_SECONDS
        )
        self._videos: Workers[str, dict[str, Any]] = Workers(
            1, video_scorer, (model, limits, offline, options), patience=limits.longest_video_work
        )

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self._photos.close()
        self._videos.close()

    def score(self, items: Iterable[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Each input with its JSON record; photos in order, videos when they are done.

        Raises:
            GenzqaError: What is not about one input: a damaged model.
        """
        source = iter(items)
        waiting: deque[tuple[Item, Future[Prepared]]] = deque()
        videos: deque[tuple[Item, Future[dict[str, Any]]]] = deque()
        while True:
            waiting.extend(
                (item, self._photos.submit(place_of(item))) for item in islice(source, self._ahead - len(waiting))
            )
            batch = [waiting.popleft() for _ in range(min(self._batch_size, len(waiting)))]
            if not batch:
                break
            for item, record in self._score_batch(batch):
                if record is None:
                    videos.append((item, self._videos.submit(place_of(item))))
                else:
                    yield item, record
            while videos and (videos[0][1].done() or len(videos) > _VIDEOS_WAITING):
                yield self._video(*videos.popleft())
        while videos:
            yield self._video(*videos.popleft())

    def _score_batch(self, batch: list[tuple[Item, Future[Prepared]]]) -> list[tuple[Item, dict[str, Any] | None]]:
        """A record for each photo, None for a video."""
        outcomes = [(item, _outcome(future)) for item, future in batch]
        photos = [
            dataclasses.replace(photo, name=item.input) for item, photo in outcomes if isinstance(photo, PreparedPhoto)
        ]
        scored = iter(self._scorer.score_prepared(photos))
        records: list[tuple[Item, dict[str, Any] | None]] = []
        for item, outcome in outcomes:
            if isinstance(outcome, InputError):
                records.append((item, self._failed(item, outcome, named_kind(item.input))))
            else:
                records.append((item, None if outcome == IS_VIDEO else next(scored).to_dict()))
        return records

    def _video(self, item: Item, future: Future[dict[str, Any]]) -> tuple[Item, dict[str, Any]]:
        outcome = _outcome(future)
        if isinstance(outcome, InputError):
            return item, self._failed(item, outcome, "video")
        return item, {**outcome, "input": item.input}

    def _failed(self, item: Item, error: InputError, kind: Literal["image", "video"]) -> dict[str, Any]:
        named = type(error)(error.reason, subject=item.input, hint=error.hint)
        return FailedResult(item.input, named, self._scorer.provenance, kind).to_dict()


def place_of(item: Item) -> str:
    """Where a process finds it, whatever folder that works in."""
    return item.input if is_url(item.input) else str(Path.cwd() / item.input) if item.input else ""


def _outcome(future: Future[Any]) -> Any:
    try:
        return future.result()
    except InputError as error:
        return error
