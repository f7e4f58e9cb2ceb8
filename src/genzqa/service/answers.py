"""From outcomes to the body of ``POST /v1/score``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.responses import Response

from genzqa.media.overlay import overlay_png
from genzqa.service.engine import Job, Outcome
from genzqa.service.refusals import WorkTimeoutError
from genzqa.service.uploads import ClientGoneError


async def outcomes_of(jobs: Sequence[Job], receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
                      seconds: float) -> list[Outcome]:  # fmt: skip
    """Wait for all jobs of a request; whatever ends the wait early cancels them.

    Args:
        jobs: Accepted by the engine.
        receive: Of the connection, whose body has been read: what comes next is its end.
        seconds: To wait at most.

    Raises:
        WorkTimeoutError: It took longer.
        ClientGoneError: The client went away.
        Exception: A job failed for a reason that is not its file's.
    """
    work = asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs))
    gone = asyncio.ensure_future(_disconnect(receive))
    awaited: list[asyncio.Future[Any]] = [work, gone]
    try:
        done, _ = await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if work in done:
            return work.result()
        if gone in done:
            raise ClientGoneError
        raise WorkTimeoutError(f"it was not scored within {seconds:g} seconds", hint="send fewer or smaller files")
    finally:
        for job in jobs:
            job.cancel()
        for task in awaited:
            task.cancel()
            with contextlib.suppress(BaseException):
                await task


async def _disconnect(receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def score_response(outcomes: Sequence[Outcome], *, maps: bool) -> Response:
    """200 if anything was scored, 422 if nothing was; with ``maps``, one PNG data URI or null for each file."""
    body: dict[str, Any] = {"results": [outcome.record for outcome in outcomes]}
    if maps:
        body["maps"] = [await asyncio.to_thread(_data_uri, outcome) for outcome in outcomes]
    status = 200 if any(outcome.record["status"] == "ok" for outcome in outcomes) else 422
    return Response(json.dumps(body, allow_nan=False), status, media_type="application/json")


def _data_uri(outcome: Outcome) -> str | None:
    png = outcome.overlay
    if outcome.photo is not None:
        result, still = outcome.photo
        assert result.quality_map is not None
        png = overlay_png(still, result.quality_map, score=result.score, grade=result.grade)
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}" if png is not None else None
