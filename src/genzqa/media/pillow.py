"""Pillow, held so that it only opens what we chose, warns nobody, and fails with our errors.

The plugin class of the sniffed format is called directly instead of `PIL.Image.open`: no other plugin can be reached,
the reason of a failure is kept, and Pillow's own size check, which reads the process-wide
`PIL.Image.MAX_IMAGE_PIXELS`, is not involved. That global is never changed. Pillow still consults it inside its TIFF
plugin, so a TIFF above twice that value (179 MP unless changed) is refused even where `Limits` would allow it.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from genzqa.errors import CorruptInputError, InputError, InputTooLargeError, UnsupportedFormatError
from genzqa.notes import Note

# JpegImageFile rather than Pillow's JPEG factory: a multi-picture file (MPO) is then simply its first JPEG.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
}

_UNSUPPORTED = re.compile(
    r"unsupported|not yet supported|not installed|unknown pixel mode|unknown data organization|cannot handle",
    re.IGNORECASE,
)
_SUBFILE_TYPE, _WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _PHOTOMETRIC = 254, 256, 257, 258, 262
_SAMPLES_PER_PIXEL, _PLANAR, _DNG_VERSION = 277, 284, 50706

_quiet_lock = threading.Lock()
_quiet_depth = 0
_QUIET_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore warnings issued inside Pillow while any thread is in this context.

    `warnings.catch_warnings` swaps a process-wide list and is not thread-safe: two threads leaving in the wrong order
    would keep the swapped list for good. Adding one filter for Pillow's modules with the first thread and removing it
    with the last touches no other warning.
    """
    global _quiet_depth
    with _quiet_lock:
        filters = cast("list[Any]", warnings.filters)
        if _quiet_depth == 0:
            filters.insert(0, _QUIET_FILTER)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                # Someone else may have swapped the list meanwhile; then there is nothing of ours to remove.
                with suppress(ValueError):
                    cast("list[Any]", warnings.filters).remove(_QUIET_FILTER)


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Run Pillow code with its warnings silenced and every exception turned into an `InputError`."""
    with quiet_pillow():
        try:
            yield
        except InputError:
            raise
        except Image.DecompressionBombError as error:
            raise InputTooLargeError(
                "more pixels than Pillow itself accepts", hint="raise PIL.Image.MAX_IMAGE_PIXELS or downscale the photo"
            ) from error
        except MemoryError as error:
            raise CorruptInputError("decoding asks for more memory than there is") from error
        except Exception as error:  # Pillow raises over a dozen classes on damaged data, SyntaxError among them
            raise _translate(error) from error


def _translate(error: Exception) -> InputError:
    message = "".join(c for c in str(error).partition("\n")[0] if c.isprintable())[:120]
    if _UNSUPPORTED.search(message) or isinstance(error.__cause__, KeyError):
        return UnsupportedFormatError(
            f"a variant of the format that is not supported: {message}", hint="save it again as PNG or JPEG"
        )
    return CorruptInputError(
        f"damaged or cut short: {message or type(error).__name__}", hint="copy or download it again"
    )


def open_image(data: bytes, image_format: str) -> ImageFile.ImageFile:
    """Read the header; no pixels are decoded.

    Raises:
        UnsupportedFormatError: A TIFF whose first page is only the preview of a camera raw file.
    """
    image = _PLUGINS[image_format](io.BytesIO(data))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        refuse_preview(image.tag_v2)
        _reroute_tiff(image)
    return image


def refuse_preview(tags: TiffImagePlugin.ImageFileDirectory_v2) -> None:
    """Refuse a TIFF whose first page is not the photo.

    Raises:
        UnsupportedFormatError: It is only the preview of a camera raw file.
    """
    if tags.get(_SUBFILE_TYPE, 0) & 1 or _DNG_VERSION in tags:
        raise UnsupportedFormatError(
            "the first picture is only a preview, as in camera raw files", hint="export the photo as TIFF or JPEG"
        )


def _reroute_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Let libtiff read two uncompressed layouts that Pillow's own reader gets wrong without an error.

    Pillow reads 16-bit samples stored plane by plane as if they had 8 bits, and YCbCr pixels as four bytes each.
    """
    tags = image.tag_v2
    if image.use_load_libtiff or not image.tile:
        return
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS_PER_SAMPLE, (1,))) == 16 and image.mode in ("RGB", "RGBA", "CMYK"):
        if tags.get(_SAMPLES_PER_PIXEL) != len(image.mode):
            raise UnsupportedFormatError("16-bit planes with extra samples", hint="save it again as PNG or JPEG")
        raw_mode = f"{image.mode};16N"
    elif tags.get(_PHOTOMETRIC) == 6 and image.mode == "RGB":
        raw_mode = "RGBX"
    else:
        return
    size = (tags[_WIDTH], tags[_HEIGHT])
    image.tile = [ImageFile._Tile("libtiff", (0, 0, *size), 0, (raw_mode, "raw", False, tags.offset))]
    image.use_load_libtiff = True


def raw_modes(image: Image.Image) -> str:
    """How samples are packed in the file, in Pillow's words; known only until the pixels are loaded."""
    return " ".join(str(tile[3]) for tile in getattr(image, "tile", [])[:1])


def frames_note(image: ImageFile.ImageFile, data: bytes, image_format: str) -> Note | None:
    """A note when the file holds more pictures than the first.

    GIF and TIFF count by walking through the file, which moves the reader, so they are opened a second time. Damage
    behind the first picture does not matter here.
    """
    count = 1
    if image_format in ("png", "webp", "avif"):
        count = int(getattr(image, "n_frames", 1))
    elif image_format == "gif" or (image_format == "tiff" and getattr(image, "is_animated", False)):
        with suppress(Exception):
            count = int(getattr(_PLUGINS[image_format](io.BytesIO(data)), "n_frames", 1))
    if image_format == "tiff" and getattr(image, "is_animated", False):
        total = str(count) if count > 1 else "several"
        return Note("multi_page_first", f"Only the first of {total} pages was read.")
    if count > 1:
        return Note("animation_first_frame", f"Only the first of {count} frames was read.")
    return None


def orientation(image: Image.Image) -> tuple[int, Note | None]:
    """The EXIF orientation, 1 to 8; 1 with a note when the metadata is damaged, no reason to refuse a photo."""
    try:
        value = image.getexif().get(274, 1)
    except Exception:  # the same variety as in `pillow_errors`
        return 1, Note("exif_ignored", "The EXIF metadata is damaged and was ignored.")
    return (value, None) if isinstance(value, int) and 1 <= value <= 8 else (1, None)
