"""The app: routes, and what lives as long as it does. `create_app` is all that a server needs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from genzqa import __version__
from genzqa.engine.engine import EngineOptions
from genzqa.media.video_sniff import is_video_file
from genzqa.result import provenance_record
from genzqa.scoring.scorer import load_as
from genzqa.service.answers import outcomes_of, score_response
from genzqa.service.engine import Engine, Job
from genzqa.service.exchange import Exchange
from genzqa.service.logs import request_id
from genzqa.service.metrics import Metrics
from genzqa.service.openapi import MODELS_DOCS, PLAIN_DOCS, READY_DOCS, SCORE_DOCS, openapi_of
from genzqa.service.readiness import Readiness
from genzqa.service.refusals import RequestError
from genzqa.service.settings import ServiceSettings
from genzqa.service.spool import Spool
from genzqa.service.uploads import BodyReader, Upload

_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_OPEN = (*_PAGE, "/healthz", "/readyz", "/openapi.json")
_ROUTES = (*_OPEN, "/v1/score", "/v1/models", "/metrics")
_SCORE_OPTIONS = ("map", "timeline")
_log = logging.getLogger("genzqa.service")


@dataclasses.dataclass(frozen=True)
class _Running:
    """What the routes use while the app runs."""

    engine: Engine
    spool: Spool
    readiness: Readiness


def create_app(model: str = "mini", settings: ServiceSettings | None = None, *, offline: bool = False,
               options: EngineOptions | None = None) -> FastAPI:  # fmt: skip
    """The service as an ASGI app.

    The model is loaded here, so that a service that cannot score does not start; threads, processes and the folder of
    uploads live from the app's startup to its shutdown, which finishes what was accepted.

    Args:
        model: As for `genzqa.load`.
        settings: Bounds and token; the defaults of `ServiceSettings` if None.
        offline: Never open a network connection for a model.
        options: How the model is run.

    Raises:
        ModelError, ConfigError: See `genzqa.errors`.

    Example:
        >>> app = create_app("mini")                     # doctest: +SKIP
        >>> uvicorn.run(app)                             # doctest: +SKIP
    """
    settings = settings or ServiceSettings()
    scorer = load_as(model, options, limits=settings.limits, offline=offline)
    metrics = Metrics()
    running: list[_Running] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine = Engine(scorer, model, settings, metrics, offline=offline, options=options)
        spool = Spool(settings.max_stored_bytes, metrics)
        try:
            readiness = await asyncio.to_thread(Readiness, scorer, engine)
            engine.start()
            running.append(_Running(engine, spool, readiness))
            ready, why = await readiness.check()
            _log.info("started", extra={"model": scorer.provenance.model, "ready": ready, "why": why})
            yield
            await asyncio.to_thread(engine.close)
            _log.info("stopped")
        finally:
            running.clear()
            spool.close()

    app = FastAPI(title="GenzQA", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
                  description="How good photos and videos look, without a reference, the way people would say it.")  # fmt: skip
    token = settings.token.get_secret_value() if settings.token is not None else None
    app.add_middleware(Exchange, metrics=metrics, token=token, open_paths=_OPEN, routes=_ROUTES)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http_error)

    @app.post("/v1/score", **SCORE_DOCS)
    async def score(
        request: Request,
        quality_map: Annotated[
            bool, Query(alias="map", description="Also draw where each photo loses its score.")
        ] = False,
        timeline: Annotated[bool, Query(description="Also score one frame per second of each video.")] = False,
    ) -> Response:
        """Score photos and videos: one record of genzqa/1 per file, in order; a bad file leaves the others alone."""
        if unknown := set(request.query_params) - set(_SCORE_OPTIONS):
            raise RequestError(f"there is no option {min(unknown)!r}", hint=f"options are {', '.join(_SCORE_OPTIONS)}")
        if quality_map and not scorer.draws_maps:
            raise RequestError("this model draws no quality maps", hint="ask without map")
        now = running[0]
        now.engine.check_room()
        reader = BodyReader(request.receive, dict(request.headers), now.spool, settings, metrics)
        try:
            uploads = await reader.read()
            jobs = await asyncio.to_thread(_jobs, uploads, quality_map, timeline)
            now.engine.accept(jobs)
            outcomes = await outcomes_of(jobs, request.receive, settings.request_seconds)
        finally:
            reader.remove()
        request.state.log = {"files": len(jobs), "scored": sum(one.record["status"] == "ok" for one in outcomes)}
        return await score_response(outcomes, maps=quality_map)

    @app.get("/v1/models", **MODELS_DOCS)
    async def models() -> Response:
        """The model that scores, and the limits of a request."""
        limits = settings.model_dump(include={"max_body_bytes", "max_files"}) | dataclasses.asdict(settings.limits)
        record = provenance_record(scorer.provenance) | {
            "temporal": scorer.config.video is not None,
            "maps": scorer.draws_maps,
        }
        return JSONResponse({"models": [record], "limits": limits})

    @app.get("/healthz", **PLAIN_DOCS)
    async def alive() -> Response:
        """The process answers; says nothing about scoring."""
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", **READY_DOCS)
    async def ready() -> Response:
        """Whether a built-in photo gets the score it should; looked at anew every 15 seconds at most."""
        good, why = await running[0].readiness.check()
        return JSONResponse({"status": "ready" if good else "not ready", "reason": why}, 200 if good else 503)

    @app.get("/metrics", include_in_schema=False)
    async def counted() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    for path, (name, kind) in _PAGE.items():
        content = files("genzqa.service").joinpath("page", name).read_bytes()
        app.add_api_route(path, _constant(content, kind), include_in_schema=False)

    app.openapi = lambda: openapi_of(app)  # type: ignore[method-assign]
    return app


def _jobs(uploads: list[Upload], quality_map: bool, timeline: bool) -> list[Job]:
    """Reads the first bytes of every file to tell photos from videos."""
    return [Job(upload.path, upload.name, "video" if is_video_file(upload.path) else "image", quality_map, timeline)
            for upload in uploads]  # fmt: skip


def _constant(content: bytes, kind: str) -> Any:
    async def answer() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8")

    return answer


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    raise RequestError(f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg']}", hint="true or false")


async def _http_error(request: Request, error: Exception) -> Response:
    """Wrong paths and methods, which the router itself refuses."""
    assert isinstance(error, HTTPException)
    code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    content = {"code": code, "reason": error.detail, "hint": "see /openapi.json", "request_id": request_id.get()}
    return Response(json.dumps({"error": content}), error.status_code, error.headers, "application/json")
