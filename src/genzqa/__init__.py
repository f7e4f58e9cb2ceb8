"""GenzQA: how good a photo or a video looks, without a reference, the way people would say it.

    >>> import genzqa
    >>> scorer = genzqa.load()                     # doctest: +SKIP
    >>> scorer.score("photo.jpg").score            # doctest: +SKIP
    71.4

Importing this package is cheap; torch and the model code load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from genzqa.engine.engine import EngineOptions
    from genzqa.errors import (
        ConfigError,
        CorruptInputError,
        DataError,
        DecoderCrashedError,
        GenzqaError,
        InputError,
        InputNotFoundError,
        InputTimeoutError,
        InputTooLargeError,
        InputUnreadableError,
        ModelCorruptError,
        ModelError,
        ModelNotFoundError,
        NotTrainedError,
        OfflineError,
        OutputError,
        TrainingError,
        UnsupportedFormatError,
    )
    from genzqa.limits import Limits
    from genzqa.model.genziqa import GenzIQA, Trace
    from genzqa.model.genzvqa import GenzVQA, VideoTrace
    from genzqa.model.slowfast import SlowFast, SlowFastConfig
    from genzqa.notes import Note
    from genzqa.result import FailedResult, ImageResult
    from genzqa.scoring.scorer import Scorer, load
    from genzqa.scoring.video_options import VideoOptions
    from genzqa.video_result import VideoResult

_HOMES = {
    **dict.fromkeys(
        ("ConfigError", "CorruptInputError", "DataError", "DecoderCrashedError", "GenzqaError", "InputError",
         "InputNotFoundError", "InputTimeoutError", "InputTooLargeError", "InputUnreadableError", "ModelCorruptError", "ModelError",
         "ModelNotFoundError", "NotTrainedError", "OfflineError", "OutputError", "TrainingError", "UnsupportedFormatError"),
        "genzqa.errors",
    ),
    "EngineOptions": "genzqa.engine.engine",
    "Limits": "genzqa.limits",
    "GenzIQA": "genzqa.model.genziqa",
    "Trace": "genzqa.model.genziqa",
    "GenzVQA": "genzqa.model.genzvqa",
    "VideoTrace": "genzqa.model.genzvqa",
    "SlowFast": "genzqa.model.slowfast",
    "SlowFastConfig": "genzqa.model.slowfast",
    "Note": "genzqa.notes",
    "FailedResult": "genzqa.result",
    "ImageResult": "genzqa.result",
    "VideoOptions": "genzqa.scoring.video_options",
    "VideoResult": "genzqa.video_result",
    "Scorer": "genzqa.scoring.scorer",
    "load": "genzqa.scoring.scorer",
}  # fmt: skip

__all__ = [
    "ConfigError",
    "CorruptInputError",
    "DataError",
    "DecoderCrashedError",
    "EngineOptions",
    "FailedResult",
    "GenzIQA",
    "GenzVQA",
    "GenzqaError",
    "ImageResult",
    "InputError",
    "InputNotFoundError",
    "InputTimeoutError",
    "InputTooLargeError",
    "InputUnreadableError",
    "Limits",
    "ModelCorruptError",
    "ModelError",
    "ModelNotFoundError",
    "NotTrainedError",
    "Note",
    "OfflineError",
    "OutputError",
    "Scorer",
    "SlowFast",
    "SlowFastConfig",
    "Trace",
    "TrainingError",
    "UnsupportedFormatError",
    "VideoOptions",
    "VideoResult",
    "VideoTrace",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
