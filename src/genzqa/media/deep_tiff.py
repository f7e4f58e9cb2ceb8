"""The deep TIFFs that Pillow has no mode for: floating point in colour or of 16 and 64 bits, and 16-bit grey with alpha.

Pillow still reads the tags and lets libtiff undo the compression; what the bytes mean is worked out here (TIFF 6.0; the
floating-point predictor is that of Adobe's Photoshop TIFF Technical Note 3).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from genzqa.errors import CorruptInputError
from genzqa.media.deep import DEPTH_NOTE, Samples, Scaling, blackened, colour_tint, float_scaling, grey_tint
from genzqa.media.pillow import refuse_preview
from genzqa.media.pixels import ALPHA_NOTE, GREY, Pixels, strips
from genzqa.notes import Note

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _STRIP_COUNTS = 273, 274, 277, 278, 279
_PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS = 284, 317, 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _ICC_PROFILE = 338, 339, 34675

_PLAIN, _LZW, _DEFLATE, _OLD_DEFLATE, _PACK_BITS, _LZMA, _ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
_COMPRESSIONS = frozenset({_PLAIN, _LZW, _DEFLATE, _OLD_DEFLATE, _PACK_BITS, _LZMA, _ZSTD})
_UNSIGNED, _FLOAT = 1, 3
_PREMULTIPLIED, _IGNORED = "premultiplied", "ignored"


@dataclass(frozen=True)
class DeepPage:
    """The first page of such a TIFF, as its tags have it.

    Attributes:
        width, height: Before the orientation is applied.
        dtype: Of a sample, in the byte order of the file.
        colours: 1 or 3 channels of colour.
        alpha: The meaning of the channel after them; empty when there is none.
        inverted: Whether 0 is white.
        planes: 1, or as many as channels where these are stored one after the other.
        segment: Rows and columns of a tile, or of a strip.
        tiled: Whether these are tiles.
        offsets, counts: Where the segments lie, and their bytes.
        compression, predictor: As in the tags.
        profile: The colour profile or None.
        orientation: 1 to 8.
        several: Whether more pages follow.
    """

    width: int
    height: int
    dtype: np.dtype[Any]
    colours: int
    alpha: str
    inverted: bool
    planes: int
    segment: tuple[int, int]
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    compression: int
    predictor: int
    profile: bytes | None
    orientation: int
    several: bool

    @property
    def channels(self) -> int:
        """Samples of a pixel."""
        return self.colours + bool(self.alpha)


def deep_page(data: bytes) -> DeepPage | None:
    """What the header says, if it is of a kind that is read here; no pixels are decoded.

    Raises:
        UnsupportedFormatError: The first page is only a preview.
        CorruptInputError: The tags contradict each other.
    """
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    bits, formats = set(_numbers(tags, _BITS, 1)), set(_numbers(tags, _SAMPLE_FORMAT, _UNSIGNED))
    channels, photometric = _number(tags, _SAMPLES_PER_PIXEL, 1), _number(tags, _PHOTOMETRIC, -1)
    colours = {0: 1, 1: 1, 2: 3}.get(photometric, 0)
    deep_float = formats == {_FLOAT} and bits in ({16}, {32}, {64}) and (channels > 1 or bits != {32})
    deep_alpha = formats == {_UNSIGNED} and bits == {16} and channels == 2
    compression = _number(tags, _COMPRESSION, _PLAIN)
    if not (deep_float or deep_alpha) or not colours or channels - colours not in (0, 1):
        return None
    if compression not in _COMPRESSIONS or _number(tags, _FILL_ORDER, 1) != 1:
        return None
    refuse_preview(tags)
    kind = "f" if deep_float else "u"
    height, width = _number(tags, _HEIGHT, 0), _number(tags, _WIDTH, 0)
    tiled = _TILE_OFFSETS in tags
    segment = min(height, _number(tags, _ROWS_PER_STRIP, height)), width
    if tiled:
        segment = _number(tags, _TILE_HEIGHT, 0), _number(tags, _TILE_WIDTH, 0)
    planes = channels if _number(tags, _PLANAR, 1) == 2 else 1
    offsets = _numbers(tags, _TILE_OFFSETS if tiled else _STRIP_OFFSETS)
    counts = _numbers(tags, _TILE_COUNTS if tiled else _STRIP_COUNTS)
    # Tiles of less than 16 x 16, which TIFF 6.0 forbids, could be as many as there are pixels.
    if min(segment) <= 0 or (tiled and (segment[0] % 16 or segment[1] % 16)):
        raise CorruptInputError("strips or tiles of a size that cannot be", hint="copy or download it again")
    wanted = planes * -(-height // segment[0]) * -(-width // segment[1])
    if not len(offsets) == len(counts) == wanted:
        raise CorruptInputError(f"{len(offsets)} strips or tiles instead of {wanted}", hint="copy or download it again")
    profile, orientation = tags.get(_ICC_PROFILE), _number(tags, _ORIENTATION, 1)
    return DeepPage(
        width=width,
        height=height,
        dtype=np.dtype(f"{'>' if data[:2] == b'MM' else '<'}{kind}{min(bits) // 8}"),
        colours=colours,
        alpha=_meaning(tags, colours) if channels > colours else "",
        inverted=photometric == 0,
        planes=planes,
        segment=segment,
        tiled=tiled,
        offsets=offsets,
        counts=counts,
        compression=compression,
        predictor=_number(tags, _PREDICTOR, 1),
        profile=profile if isinstance(profile, bytes) else None,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        several=tags.next != 0,
    )


def _numbers(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, *default: int) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return tuple(int(number) for number in (value if isinstance(value, tuple) else (value,)))


def _number(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> int:
    return next(iter(_numbers(tags, tag, default)), default)


def _meaning(tags: TiffImagePlugin.ImageFileDirectory_v2, colours: int) -> str:
    """Of the channel after the colours: as Pillow takes it in files of 8 bits, where writers are as careless."""
    kind = _number(tags, _EXTRA_SAMPLES, 2)
    if kind == 0 and colours == 3:
        return _IGNORED
    return _PREMULTIPLIED if kind == 1 else "straight"


def read_deep_page(data: bytes, page: DeepPage) -> tuple[Pixels, list[Note]]:
    """The pixels of the page, not yet turned upright: ``(H, W, 3)``, or ``(H, W, 1)`` where all channels are the same.

    Raises:
        CorruptInputError: The data is damaged or cut short, or none of it is a finite number.
    """
    samples = np.empty((page.height, page.width, page.channels), page.dtype.newbyteorder("="))
    for rows, columns, channels, segment in _segments(data, page):
        samples[rows, columns, channels] = segment[: rows.stop - rows.start, : columns.stop - columns.start]
    notes = [Note("multi_page_first", "Only the first of several pages was read.")] if page.several else []
    if page.dtype.kind == "u":
        notes.append(DEPTH_NOTE)
    scale = float_scaling((colour for _, colour, _ in _parts(samples, page)), notes)
    tint: Scaling | None = (colour_tint if page.colours == 3 else _grey_tint)(page.profile, notes)
    shape = (page.height, page.width, 1 if page.colours == 1 and tint is None else 3)
    # In its own place where it fits: a colour picture of 32 bits is large.
    pixels = samples if samples.shape == shape and samples.dtype == np.float32 else np.empty(shape, np.float32)
    transparent = False
    for rows, stored, alpha in _parts(samples, page):
        colour = scale(stored)
        if page.inverted:
            colour = blackened(np.float32(1) - colour, stored)
        if tint is not None:
            colour = tint(colour)
        if alpha is not None and (alpha < 1).any():
            colour = colour * alpha + np.float32(GREY / 255) * (1 - alpha)
            transparent = True
        pixels[rows] = colour
    if transparent:
        notes.append(ALPHA_NOTE)
    return pixels, notes


def _grey_tint(profile: bytes | None, notes: list[Note]) -> Scaling | None:
    tint = grey_tint(profile, notes)
    return None if tint is None else lambda grey: tint(grey[..., 0])


def _parts(samples: Samples, page: DeepPage) -> Iterator[tuple[slice, Samples, npt.NDArray[np.float32] | None]]:
    """Some rows at a time: which, their colours not premultiplied, and their alpha ``(rows, W, 1)`` in 0..1."""
    for rows in strips(page.width, page.height):
        part = samples[rows]
        if page.dtype.kind == "u":
            part = part.astype(np.float32) / np.float32(65535)
        colour, alpha = part[..., : page.colours], None
        if page.alpha and page.alpha != _IGNORED:
            stored = part[..., page.colours :]
            alpha = np.clip(np.where(np.isnan(stored), 0, stored), 0, 1).astype(np.float32)
        if page.alpha == _PREMULTIPLIED and alpha is not None:
            with np.errstate(over="ignore"):  # to infinity, which is not finite and so black
                colour = np.divide(colour, alpha, out=np.zeros_like(colour), where=alpha > 0)
        yield rows, colour, alpha


def _segments(data: bytes, page: DeepPage) -> Iterator[tuple[slice, slice, slice, Samples]]:
    """Every strip or tile ``(rows, columns, channels)``, and the part of the picture that it begins in its corner."""
    view, (high, wide) = memoryview(data), page.segment  # a strip may be all of the file
    places = [
        (plane, top, left)
        for plane in range(page.planes)
        for top in range(0, page.height, high)
        for left in range(0, page.width, wide)
    ]
    for (plane, top, left), offset, count in zip(places, page.offsets, page.counts, strict=True):
        rows, columns = slice(top, min(page.height, top + high)), slice(left, min(page.width, left + wide))
        channels = slice(0, page.channels) if page.planes == 1 else slice(plane, plane + 1)
        # The last strip is cut where the picture ends; a tile never is.
        shape = (high if page.tiled else rows.stop - rows.start, wide, channels.stop - channels.start)
        yield rows, columns, channels, _segment(view[offset : offset + count], shape, page)


def _segment(stored: memoryview, shape: tuple[int, int, int], page: DeepPage) -> Samples:
    rows, columns, channels = shape
    row_bytes = columns * channels * page.dtype.itemsize
    plain = stored if page.compression == _PLAIN else _decompressed(stored, rows, row_bytes, page.compression)
    if len(plain) < rows * row_bytes:
        raise CorruptInputError("the TIFF data is cut short", hint="copy or download it again")
    values = np.frombuffer(plain, np.uint8, rows * row_bytes)
    if page.predictor == 3 and page.dtype.kind == "f":
        # Differences of bytes, the most significant byte of all samples of a row first, whatever the byte order.
        values = np.cumsum(values.reshape(rows, -1, channels), axis=1, dtype=np.uint8)
        planes = values.reshape(rows, page.dtype.itemsize, columns * channels)
        return np.ascontiguousarray(planes.transpose(0, 2, 1)).view(page.dtype.newbyteorder(">")).reshape(shape)
    if page.predictor == 2:
        whole = values.view(f"{page.dtype.byteorder}u{page.dtype.itemsize}").reshape(shape)
        native = whole.dtype.newbyteorder("=")
        return np.cumsum(whole, axis=1, dtype=native).view(page.dtype.newbyteorder("="))
    if page.predictor != 1:
        raise CorruptInputError(f"an unknown predictor: {page.predictor}", hint="copy or download it again")
    return values.view(page.dtype).reshape(shape)


def _decompressed(stored: memoryview, rows: int, row_bytes: int, compression: int) -> bytes:
    """The bytes of a strip or tile, read by libtiff as if they were a grey picture of 8 bits of their own."""
    tags = {_WIDTH: row_bytes, _HEIGHT: rows, _BITS: 8, _COMPRESSION: compression, _PHOTOMETRIC: 1, _STRIP_OFFSETS: 0,
            _SAMPLES_PER_PIXEL: 1, _ROWS_PER_STRIP: rows, _STRIP_COUNTS: len(stored)}  # fmt: skip
    tags[_STRIP_OFFSETS] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    with TiffImagePlugin.TiffImageFile(io.BytesIO(header + entries + bytes(4) + stored)) as image:
        return image.tobytes()
