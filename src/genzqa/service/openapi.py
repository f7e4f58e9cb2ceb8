"""What ``/openapi.json`` says beyond what FastAPI finds out by itself: bodies, answers, and examples of them."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from genzqa.result import SCHEMA

_PROVENANCE = {
    "model": "mini", "base": "mini", "weights_sha256": "89a4f7c41e32e3a47049e9bd7c555f44095ba274057c575b21dea20444c37dfb",
    "base_sha256": "71d91cda3e3c46992b37a57d761432250007f395b005226239f4430c65c1f594",
    "preprocessing": "bicubic-antialias-448x448-chroma1.5", "timesteps": [50], "seed": 2406,
    "backend": "torch", "precision": "fp32", "version": "0.1.0",
}  # fmt: skip
_SCORED = {
    "schema": SCHEMA, "input": "lighthouse.jpg", "kind": "image", "status": "ok", "score": 85.7816, "raw": 84.68692,
    "interval": [44.2548, 94.4691], "grade": "excellent", "percentile": 99.0, **_PROVENANCE, "width": 512, "height": 768, "notes": [],
    "seconds": 0.17,
}  # fmt: skip
_FAILED = {
    "schema": SCHEMA, "input": "notes.pdf", "kind": "image", "status": "error", **_PROVENANCE,
    "error": {"code": "unsupported_format", "file": "notes.pdf", "reason": "this is a PDF document",
              "hint": "supported are JPEG, PNG, WebP, AVIF, TIFF, BMP and GIF"},
}  # fmt: skip
_ANSWER = {"$ref": "#/components/schemas/Scores"}
_REFUSALS = {
    400: "The body or an option is malformed.",
    401: "No token, or a wrong one.",
    403: "A page of another site sent the request.",
    408: "The body came too slowly.",
    413: "Too many bytes or files.",
    415: "The body is not multipart/form-data.",
    429: "As many files are waiting as may wait; Retry-After says when to come back.",
    500: "A fault of the service.",
    503: "The service cannot work just now.",
    504: "Scoring took longer than a request may take.",
}


def _json(schema: dict[str, Any], **examples: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": content}


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    answers: dict[int | str, dict[str, Any]] = {
        status: {"description": _REFUSALS[status], "content": _json({"$ref": "#/components/schemas/Refusal"})}
        for status in statuses
    }
    if 429 in answers:
        seconds = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
        answers[429]["headers"] = {"Retry-After": seconds}
    return answers


SCORE_DOCS: dict[str, Any] = {
    "summary": "Score photos and videos",
    "operation_id": "score",
    "responses": {
        200: {"description": "At least one file was scored; one record per file, in order.",
              "content": _json(_ANSWER, one={"results": [_SCORED]}, mixed={"results": [_SCORED, _FAILED]})},
        422: {"description": "No file could be scored; each record says why.",
              "content": _json(_ANSWER, unreadable={"results": [_FAILED]})},
        **_refusals(400, 401, 403, 408, 413, 415, 429, 500, 503, 504),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "additionalProperties": False,
                        "properties": {
                            "file": {
                                "description": "Photos and videos; the field may be repeated.",
                                "type": "array",
                                "minItems": 1,
                                "items": {"type": "string", "format": "binary"},
                            }
                        },
                    }
                }
            },
        }
    },
}  # fmt: skip
MODELS_DOCS: dict[str, Any] = {
    "summary": "The model and the limits",
    "operation_id": "models",
    "responses": {200: {"description": "As it stands in records, and what a request may be.",
                        "content": _json({"$ref": "#/components/schemas/Models"})}, **_refusals(401)},
}  # fmt: skip
PLAIN_DOCS: dict[str, Any] = {
    "summary": "Alive?",
    "operation_id": "alive",
    "responses": {200: {"description": "Yes.", "content": _json({"type": "object"}, alive={"status": "alive"})}},
}
READY_DOCS: dict[str, Any] = {
    "summary": "Ready?",
    "operation_id": "ready",
    "responses": {
        200: {"description": "Yes.", "content": _json({"type": "object"}, ready={"status": "ready", "reason": ""})},
        503: {"description": "No; reason says why.", "content": _json({"type": "object"})},
    },
}


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parts = document.setdefault("components", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            parts.get("schemas", {}).pop(unused, None)
        parts.setdefault("schemas", {}).update(_schemas())
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path in ("/v1/score", "/v1/models"):
            for operation in document["paths"][path].values():
                operation["security"] = [{}, {"token": []}]  # only where the service was started with one
        app.openapi_schema = document
    return app.openapi_schema


def _schemas() -> dict[str, Any]:
    """genzqa/1 with its parts under ``components``, and the bodies made of it."""
    text = files("genzqa").joinpath("schema", "genzqa-1.schema.json").read_text("utf-8")
    record = json.loads(text.replace("#/$defs/", "#/components/schemas/record_"))
    parts = {f"record_{name}": schema for name, schema in record.pop("$defs").items()}
    for key in ("$schema", "$id"):
        del record[key]
    texts = {name: {"type": "string"} for name in ("code", "reason", "hint", "request_id")}
    refusal = {"type": "object", "properties": texts, "required": list(texts), "additionalProperties": False}
    return parts | {
        "Record": record,
        "Scores": {
            "type": "object",
            "properties": {
                "results": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Record"}},
                "maps": {"description": "With map=true: a PNG as data URI, or null, for each record.",
                         "type": "array", "items": {"type": ["string", "null"]}},
            },
            "required": ["results"],
            "additionalProperties": False,
        },
        "Refusal": {"type": "object", "properties": {"error": refusal}, "required": ["error"],
                    "additionalProperties": False},
        "Models": {
            "type": "object",
            "properties": {
                "models": {"type": "array", "items": {"type": "object"}},
                "limits": {"type": "object", "additionalProperties": {"type": "number"}},
            },
            "required": ["models", "limits"],
        },
    }  # fmt: skip
