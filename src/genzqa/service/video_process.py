"""The process that scores videos: ``python -m genzqa.service.video_process MODEL OFFLINE LIMITS OPTIONS DESCRIPTOR``.

It has a model of its own, so that a long video shares nothing with the photos but the processor.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from genzqa.engine.engine import EngineOptions
from genzqa.errors import GenzqaError, InputError
from genzqa.limits import Limits
from genzqa.media.overlay import overlay_png
from genzqa.media.still import read_still
from genzqa.result import ImageResult
from genzqa.scoring.scorer import Scorer, load_as
from genzqa.scoring.video_options import VideoOptions
from genzqa.service.worker import Answer, CancelledWorkError, work
from genzqa.wire import Message, error_message


def _score(scorer: Scorer, request: Message, cancelled: Callable[[], bool]) -> Answer:
    """The answer holds the record; a block, if a map was asked for and the video has but one frame, its overlay."""

    def stop_if_cancelled(done: int, total: int) -> None:
        if cancelled():
            raise CancelledWorkError

    options = VideoOptions(timeline=request["timeline"])
    try:
        result = scorer.score(request["path"], quality_map=request["map"], video=options, progress=stop_if_cancelled)
        blocks = []
        if isinstance(result, ImageResult) and result.quality_map is not None:
            still = read_still(request["path"], scorer.limits)
            blocks = [overlay_png(still, result.quality_map, score=result.score, grade=result.grade)]
    except InputError as error:
        return error_message(error), ()
    except CancelledWorkError:
        return {"cancelled": True}, ()
    except GenzqaError as error:  # the motion network is not on this machine, and the like
        return {"failed": str(error)}, ()
    return {"record": result.to_dict()}, blocks


def main(model: str, offline: str, limits_json: str, options_json: str, descriptor: str) -> None:
    """Load the model, then serve until the parent is gone."""
    options = EngineOptions(**json.loads(options_json))
    scorer = load_as(model, options, limits=Limits(**json.loads(limits_json)), offline=offline == "1")
    work(int(descriptor), lambda request, cancelled: _score(scorer, request, cancelled))


if __name__ == "__main__":
    main(*sys.argv[1:])
