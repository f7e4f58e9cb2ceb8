"""Log lines as JSON objects, one a line, each with the id of the request it is about."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is being answered."""

_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


def new_request_id(offered: str | None) -> str:
    """The client's own id if it is well-formed (1 to 64 of ``A-Z a-z 0-9 . _ -``), or a new random one."""
    return offered if offered is not None and _WELL_FORMED.fullmatch(offered) else secrets.token_hex(8)


class JsonLines(logging.Formatter):
    """``time``, ``level``, ``logger``, ``event``, ``request_id`` if there is one, and what ``extra`` holds; pure ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in it."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        line |= {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)


def log_to_stderr() -> None:
    """Send the service's and uvicorn's lines to stderr; for the program, not for an app inside another server."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("genzqa", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
