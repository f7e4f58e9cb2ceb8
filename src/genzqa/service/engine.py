"""Accepted photos and videos on their way to a result.

    photo -> queue -> decoding processes -> decoded photos -> scoring thread, several at a time -> result
    video -> queue -> video process -> result

Photos that arrive while the network is busy are scored together in its next call; no photo waits for others to come, and a
score does not depend on who shared the call. Videos have their own queue, process and model, so that a long one never holds
up a photo. Both queues are bounded, and so is what is decoded ahead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from genzqa.engine.engine import EngineOptions
from genzqa.errors import DecoderCrashedError, GenzqaError, InputError
from genzqa.media.prepare import PreparedPhoto
from genzqa.notes import Note
from genzqa.result import FailedResult, ImageResult
from genzqa.scoring.scorer import Scorer
from genzqa.service.metrics import Metrics
from genzqa.service.refusals import BusyError, UnavailableError
from genzqa.service.settings import ServiceSettings
from genzqa.service.worker import CancelledWorkError, Worker, WorkerDiedError, WorkerUnusableError
from genzqa.wire import array_of, error_of

Kind: TypeAlias = Literal["image", "video"]
_LONGEST_RETRY = 60  # seconds
_DIED = "the decoder broke on this file"
_log = logging.getLogger("genzqa.service")


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        record: As in genzqa/1.
        photo: Result and reduced pixels of a photo that is to get a map.
        overlay: PNG of a map that is drawn already.
    """

    record: dict[str, Any]
    photo: tuple[ImageResult, npt.NDArray[np.uint8]] | None = None
    overlay: bytes | None = None


@dataclass(eq=False)
class Job:
    """One accepted file; `cancel` it when nobody waits any more."""

    path: str
    name: str
    kind: Kind
    quality_map: bool = False
    timeline: bool = False
    accepted: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)
    future: Future[Outcome] = field(default_factory=Future)

    def cancel(self) -> None:
        """Stop working on it as soon as can be; its place is free when that has happened."""
        self.cancelled.set()


_Decoded: TypeAlias = tuple[Job, PreparedPhoto, "npt.NDArray[np.uint8] | None"]


class Engine:
    """The threads and processes that score; `start` and `close` it.

    Args:
        scorer: Scores the photos.
        model: Its name, by which the video process loads its own.
        settings: Lengths of queues and the like.
        metrics: Told what happens.
        offline: Whether the video process may open connections.
        options: How the video process runs the model.
    """

    def __init__(self, scorer: Scorer, model: str, settings: ServiceSettings, metrics: Metrics, *,
                 offline: bool = False, options: EngineOptions | None = None) -> None:  # fmt: skip
        self._scorer, self._settings, self._metrics = scorer, settings, metrics
        self._places: dict[Kind, int] = {"image": settings.queue_length, "video": settings.video_queue_length}
        self._held: dict[Kind, int] = {"image": 0, "video": 0}
        self._seconds_each: dict[Kind, float] = {"image": 0.5, "video": 5.0}  # a running mean; these are first guesses
        self._lock = threading.Lock()
        self._queues: dict[Kind, queue.SimpleQueue[Job | None]] = {
            "image": queue.SimpleQueue(),
            "video": queue.SimpleQueue(),
        }
        self._decoded: queue.Queue[_Decoded | None] = queue.Queue(2 * settings.batch_size)
        limits = json.dumps(dataclasses.asdict(settings.limits))
        run_as = json.dumps(dataclasses.asdict(options or EngineOptions()))
        self._decoders = [
            Worker(["genzqa.service.decode_process", limits], threads=1) for _ in range(settings.decoders)
        ]
        self._filmer = Worker(["genzqa.service.video_process", model, "1" if offline else "0", limits, run_as])
        decoding = [threading.Thread(target=self._decode, args=(worker,), name=f"genzqa-decode-{number}")
                    for number, worker in enumerate(self._decoders)]  # fmt: skip
        self._threads = [*decoding, threading.Thread(target=self._score_videos, name="genzqa-video")]
        self._scoring = threading.Thread(target=self._score, name="genzqa-score")

    def start(self) -> None:
        """Start the threads; the video process comes with the first video."""
        for thread in (*self._threads, self._scoring):
            thread.daemon = True
            thread.start()

    def close(self) -> None:
        """Finish what was accepted, then end all threads and processes."""
        for _ in self._decoders:
            self._queues["image"].put(None)
        self._queues["video"].put(None)
        for thread in self._threads:
            thread.join()
        self._decoded.put(None)
        self._scoring.join()

    def check_room(self) -> None:
        """Refuse early what would be refused after its upload.

        Raises:
            BusyError: No photo would be accepted now.
        """
        with self._lock:
            self._require(["image"])

    def accept(self, jobs: list[Job]) -> None:
        """Take in all jobs of a request, or none.

        Raises:
            BusyError: There is no room for them.
        """
        with self._lock:
            self._require([job.kind for job in jobs])
            for job in jobs:
                self._held[job.kind] += 1
                self._metrics.waiting.labels(job.kind).set(self._held[job.kind])
        for job in jobs:
            job.future.set_running_or_notify_cancel()  # from now on only this engine ends it
            self._queues[job.kind].put(job)

    def _require(self, kinds: list[Kind]) -> None:
        for kind in set(kinds):
            if self._held[kind] + kinds.count(kind) > self._places[kind]:
                what = "photos" if kind == "image" else "videos"
                wait = math.ceil(self._held[kind] * self._seconds_each[kind] / 2)
                raise BusyError(f"{self._held[kind]} {what} are waiting, and {self._places[kind]} may",
                                hint="send it again later", retry_after=min(_LONGEST_RETRY, max(1, wait)))  # fmt: skip

    def _finish(self, job: Job, outcome: Outcome | BaseException) -> None:
        with self._lock:
            self._held[job.kind] -= 1
            self._metrics.waiting.labels(job.kind).set(self._held[job.kind])
        if isinstance(outcome, CancelledWorkError):
            state = "cancelled"
        else:
            state = outcome.record["status"] if isinstance(outcome, Outcome) else "failed"
        self._metrics.files.labels(job.kind, state).inc()
        if isinstance(outcome, Outcome):
            job.future.set_result(outcome)
        else:
            job.future.set_exception(outcome)

    def _failed(self, job: Job, error: InputError) -> Outcome:
        return Outcome(FailedResult(job.name, error, self._scorer.provenance, job.kind).to_dict())

    def _decode(self, worker: Worker) -> None:
        size = self._scorer.config.preprocessing.size
        while (job := self._queues["image"].get()) is not None:
            try:
                if job.cancelled.is_set():
                    raise CancelledWorkError
                request = {"path": job.path, "size": size, "still": job.quality_map}
                message, blocks = worker.ask(request, 2, job.cancelled)
                if "error" in message:
                    self._finish(job, self._failed(job, error_of(message, job.name)))
                    continue
                notes = tuple(Note(str(note["code"]), str(note["text"])) for note in message["notes"])
                ready = PreparedPhoto(job.name, int(message["width"]), int(message["height"]), notes,
                                      array_of(blocks[0], (size, size, 3), np.float32), float(message["seconds"]))  # fmt: skip
                still = array_of(blocks[1], message["still"], np.uint8) if job.quality_map else None
                self._decoded.put((job, ready, still))
            except Exception as error:
                self._finish(job, self._outcome_of(error, job))
        worker.stop()

    def _outcome_of(self, error: Exception, job: Job) -> Outcome | Exception:
        """What a job ends with when its process does not answer as it should."""
        if isinstance(error, CancelledWorkError):
            return error
        self._metrics.worker_failures.labels(job.kind).inc()
        _log.error("worker failure", extra={"kind": job.kind, "error": f"{type(error).__name__}: {error}"})
        if isinstance(error, WorkerUnusableError):
            return UnavailableError("it cannot be scored just now", subject=job.name, hint="send it again later")
        if isinstance(error, WorkerDiedError | ValueError | KeyError | TypeError | IndexError):
            return self._failed(
                job, DecoderCrashedError(_DIED, subject=job.name, hint="save it again with another program")
            )
        return error

    def _score(self) -> None:
        last = False
        while not last:
            batch = [self._decoded.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < self._settings.batch_size:
                    batch.append(self._decoded.get_nowait())
            decoded = [one for one in batch if one is not None]
            last = len(decoded) < len(batch)
            for one in [one for one in decoded if one[0].cancelled.is_set()]:
                self._finish(one[0], CancelledWorkError())
            for mapped in (False, True):
                alike = [one for one in decoded if one[0].quality_map is mapped and not one[0].future.done()]
                if alike:
                    self._score_together(alike, mapped)

    def _score_together(self, batch: list[_Decoded], quality_map: bool) -> None:
        started = time.monotonic()
        try:
            results = self._scorer.score_prepared([ready for _, ready, _ in batch], quality_map=quality_map)
        except Exception as error:  # of the model; every request hears of it, and the thread goes on
            _log.exception("scoring failed")
            for job, _, _ in batch:
                self._finish(job, error if isinstance(error, GenzqaError) else RuntimeError("scoring failed"))
            return
        seconds = time.monotonic() - started
        self._metrics.batch_photos.observe(len(batch))
        self._seconds_each["image"] += 0.1 * (seconds / len(batch) - self._seconds_each["image"])
        for (job, _, still), result in zip(batch, results, strict=True):
            self._finish(job, Outcome(result.to_dict(), (result, still) if still is not None else None))

    def _score_videos(self) -> None:
        while (job := self._queues["video"].get()) is not None:
            started = time.monotonic()
            try:
                if job.cancelled.is_set():
                    raise CancelledWorkError
                request = {"path": job.path, "map": job.quality_map, "timeline": job.timeline}
                message, blocks = self._filmer.ask(request, 1, job.cancelled)
                if "error" in message:
                    outcome: Outcome | Exception = self._failed(job, error_of(message, job.name))
                else:
                    outcome = Outcome(message["record"] | {"input": job.name}, overlay=blocks[0] if blocks else None)
            except Exception as error:
                outcome = self._outcome_of(error, job)
            self._seconds_each["video"] += 0.3 * (time.monotonic() - started - self._seconds_each["video"])
            self._finish(job, outcome)
        self._filmer.stop()
