"""The process that decodes photos: ``python -m genzqa.service.decode_process LIMITS DESCRIPTOR``. Loads no torch."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from genzqa.errors import InputError
from genzqa.limits import Limits
from genzqa.media.image import decode_image
from genzqa.media.overlay import LONG_SIDE, shrunk
from genzqa.media.prepare import prepared
from genzqa.service.worker import Answer, work
from genzqa.wire import Message, error_message


def _decode(request: Message, limits: Limits) -> Answer:
    """Blocks of the answer: pixels for the network, and, if asked for, the photo reduced for its overlay."""
    started = time.perf_counter()
    try:
        photo = decode_image(request["path"], limits=limits)
    except InputError as error:
        return error_message(error), ()
    ready = prepared(photo, request["size"], since=started)
    answer = {
        "width": ready.width,
        "height": ready.height,
        "notes": [dataclasses.asdict(note) for note in ready.notes],
        "seconds": ready.seconds,
    }
    blocks = [ready.pixels.tobytes()]
    if request["still"]:
        still = np.asarray(shrunk(photo.pixels, LONG_SIDE))
        answer["still"] = list(still.shape)
        blocks.append(still.tobytes())
    return answer, blocks


def main(limits_json: str, descriptor: str) -> None:
    """Serve until the parent is gone; a decoder that a file takes over can write no file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limits = Limits(**json.loads(limits_json))

    def handle(request: Message, cancelled: Callable[[], bool]) -> Answer:
        return _decode(request, limits)

    work(int(descriptor), handle)


if __name__ == "__main__":
    main(*sys.argv[1:])
