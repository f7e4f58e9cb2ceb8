"""The pixels behind a photo's result, read again since results keep none: of a photo, or of the one frame of a video."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from genzqa.media.image import decode_image
from genzqa.media.video import is_video_file, open_video

if TYPE_CHECKING:
    from genzqa.limits import Limits
    from genzqa.media.image import ImageSource
    from genzqa.media.pixels import Pixels


def read_still(source: ImageSource, limits: Limits) -> Pixels:
    """``(H, W, 3)`` pixels of a photo, or of the first frame of a video.

    Raises:
        InputError: If it cannot be read.
    """
    if isinstance(source, str | bytes | os.PathLike) and is_video_file(source):
        with open_video(source, limits) as reader:
            return next(iter(reader.moments([0.0]))).pixels
    return decode_image(source, limits=limits).pixels
