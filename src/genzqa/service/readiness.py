"""Is the service ready? It is if a built-in photo gets the score it should.

``python -m genzqa.service.readiness`` prints what `EXPECTED` has to say about the embedded models.
"""

from __future__ import annotations

import asyncio
import time
from importlib.resources import as_file, files
from typing import Any

from genzqa.model.registry import list_models
from genzqa.scoring.scorer import Scorer, load
from genzqa.service.engine import Engine, Job
from genzqa.service.refusals import BusyError

EXPECTED = {
    "89a4f7c41e32e3a47049e9bd7c555f44095ba274057c575b21dea20444c37dfb": 67.0090,  # mini
    "87ae8f8db1453a50d4a352bb70f957ff73bec79d024a2a59fc61f76c4fcc04ed": 80.0966,  # mini-student
}
"""Scores of the photo by the SHA-256 of the trained weights; other models must repeat what they said at the start."""

EMBEDDED = tuple(model.name for model in list_models() if model.embedded)
TOLERANCE = 0.05  # score points: other processors and libraries round otherwise
FRESH_SECONDS = 15.0
PATIENCE_SECONDS = 30.0


class Readiness:
    """Scores the photo at most once in `FRESH_SECONDS`, however often it is asked.

    Args:
        scorer: Of the service.
        engine: The photo goes the way of all photos: a decoder and the scoring thread must both be well.
    """

    def __init__(self, scorer: Scorer, engine: Engine) -> None:
        self._engine = engine
        known = EXPECTED.get(scorer.provenance.weights_sha256)
        self.expected = known if known is not None else probe_score(scorer)
        self._checked, self._answer = -FRESH_SECONDS, (False, "not checked yet")
        self._lock = asyncio.Lock()

    async def check(self) -> tuple[bool, str]:
        """Whether the service is ready, and why not."""
        async with self._lock:
            if time.monotonic() - self._checked >= FRESH_SECONDS:
                self._answer = await self._score()
                self._checked = time.monotonic()
            return self._answer

    async def _score(self) -> tuple[bool, str]:
        with as_file(_probe()) as path:
            job = Job(str(path), "probe.jpg", "image")
            try:
                self._engine.accept([job])
                outcome = await asyncio.wait_for(asyncio.wrap_future(job.future), PATIENCE_SECONDS)
            except BusyError:  # busy is not broken
                return self._answer
            except TimeoutError:
                job.cancel()
                return False, f"the built-in photo has no score after {PATIENCE_SECONDS:g} seconds"
            except Exception as error:
                return False, f"the built-in photo cannot be scored: {error}"
        record: dict[str, Any] = outcome.record
        if record["status"] != "ok":
            return False, f"the built-in photo cannot be scored: {record['error']['reason']}"
        if abs(record["score"] - self.expected) > TOLERANCE:
            return False, f"the built-in photo scores {record['score']:.3f} instead of {self.expected:.3f}"
        return True, ""


def probe_score(scorer: Scorer) -> float:
    """What this model says of the photo, 0..100."""
    with as_file(_probe()) as path:
        return scorer.score(path).score


def _probe() -> Any:
    return files("genzqa.service").joinpath("probe.jpg")


if __name__ == "__main__":
    print("EXPECTED = {")
    for embedded in map(load, EMBEDDED):
        print(
            f'    "{embedded.provenance.weights_sha256}": {probe_score(embedded):.4f},  # {embedded.provenance.model}'
        )
    print("}")
