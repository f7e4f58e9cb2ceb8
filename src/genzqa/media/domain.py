"""Is this the kind of picture the models were trained on? If not, its notes say so; the score stands all the same.

Training photos are camera pictures of 512 x 512 pixels. The checks look at native pixels, never at a resized picture:
a resize would invent the very gradients whose absence gives a drawing away. The thresholds are measured, see
``docs/score.md``: screen content and drawings are told from photos by 8 x 8 blocks being either perfectly flat or
holding a hard edge, with little in between. JPEG works on the same blocks, so its ringing stays inside edge blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from genzqa.media.pixels import Pixels
from genzqa.notes import Note

Bytes = npt.NDArray[np.uint8]

TRAINING_SIDE = 512
SMALL_SIDE, LARGE_SIDE, LONGEST_ASPECT = 128, 6000, 2.5
GRID, CROP = 4, 128  # 16 native crops of 128 x 128: as many pixels as a training photo
BLOCK = 8

_UNIFORM_RANGE = 4  # of 255, in every channel
_GREY_CHROMA = 8  # of 255: what JPEG leaves of chroma in a grey picture
_FLAT_RANGE = 3  # of 255, within a block: one quantisation step of a good JPEG
_EDGE_RANGE = 64
_NEUTRAL_CHROMA = 24


def domain_notes(pixels: Pixels) -> tuple[Note, ...]:
    """Notes on how the picture differs from the training photos; empty for an ordinary photo.

    Looks at no more than about 512 x 512 pixels twice, whatever the size; the same pixels give the same notes.

    Args:
        pixels: ``(H, W, 3)``, uint8 0..255 or float32 0..1.

    Returns:
        Notes with codes ``very_small``, ``very_large``, ``extreme_aspect``, then at most one of ``uniform``,
        or ``grey_scale`` and one of ``screen_content`` and ``drawn``.
    """
    height, width, _ = pixels.shape
    notes = list(_size_notes(height, width))
    spread = _spread(pixels)
    if all(int(channel.max()) - int(channel.min()) <= _UNIFORM_RANGE for channel in spread):
        return (*notes, Note("uniform", "One plain colour without structure; a quality score says nothing about it."))
    if (_chroma(spread) <= _GREY_CHROMA).mean() >= 0.99:
        notes.append(Note("grey_scale", "No colour; the model was trained on colour photos."))
    if min(height, width) >= 2 * BLOCK:
        notes.extend(_drawing_notes(pixels))
    return tuple(notes)


def _size_notes(height: int, width: int) -> Iterator[Note]:
    short, long = sorted((height, width))
    if short < SMALL_SIDE:
        yield Note("very_small", f"The short side is only {short} pixels; the model was trained on 512 x 512.")
    if long > LARGE_SIDE:
        yield Note("very_large", f"The long side is {long} pixels; fine detail is lost in the resize before scoring.")
    if long > LONGEST_ASPECT * short:
        yield Note("extreme_aspect", f"{width} x {height}: the resize to a square distorts it strongly.")


def _drawing_notes(pixels: Pixels) -> Iterator[Note]:
    crops = [_planes(crop) for crop in _crops(pixels)]
    high, low = (
        np.concatenate([_of_blocks(crop, best) for crop in crops], axis=1) for best in (np.maximum, np.minimum)
    )
    block_range = (high - low).max(0)  # over all 64 pixels, largest channel
    flat, edge = block_range <= _FLAT_RANGE, block_range > _EDGE_RANGE
    edges = edge.mean()
    between = ((block_range > 10) & ~edge).mean()
    if flat.mean() < 0.3 or edges < 0.03 or between > 0.8 * edges:
        return
    blocks = np.concatenate([_blocks(crop) for crop in crops], axis=1)
    if _two_toned(blocks[:, edge]) < 0.55:
        return
    neutral = (_chroma(low[:, flat]) < _NEUTRAL_CHROMA).mean()
    if neutral > 0.4 and _palette_share(blocks, colours=8) > 0.8:
        yield Note("screen_content", "Looks like a screenshot, text or line art; the model knows camera photos.")
    else:
        yield Note("drawn", "Looks drawn: flat areas and hard outlines; the model knows camera photos.")


def _two_toned(blocks: Bytes) -> float:
    """Share of pixels close to the darkest or the lightest of their block: high at an edge between two flat tones."""
    red, green, blue = blocks.astype(np.float32)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).reshape(-1, BLOCK * BLOCK)
    low, high = luma.min(1, keepdims=True), luma.max(1, keepdims=True)
    margin = 0.15 * (high - low)
    return float(((luma - low < margin) | (high - luma < margin)).mean())


def _palette_share(blocks: Bytes, *, colours: int) -> float:
    """Share of pixels that the most frequent colours cover, of 32 levels per channel."""
    red, green, blue = (blocks >> 3).astype(np.int64).reshape(3, -1)
    counts = np.bincount(red << 10 | green << 5 | blue, minlength=colours)
    return float(np.sort(counts)[-colours:].sum() / counts.sum())


def _chroma(planes: Bytes) -> Bytes:
    """Largest minus smallest channel of ``(3, ...)``."""
    spread: Bytes = planes.max(0) - planes.min(0)
    return spread


def _spread(pixels: Pixels) -> Bytes:
    """Every n-th row and column, so that something small on a plain ground is still seen."""
    rows, columns = (max(1, -(-side // TRAINING_SIDE)) for side in pixels.shape[:2])
    return _planes(pixels[::rows, ::columns])


def _crops(pixels: Pixels) -> Iterator[Pixels]:
    """The picture itself, or a grid of native crops on JPEG's block grid."""
    for top, bottom in _ranges(pixels.shape[0]):
        for left, right in _ranges(pixels.shape[1]):
            yield pixels[top:bottom, left:right]


def _ranges(side: int) -> list[tuple[int, int]]:
    if side <= GRID * CROP:
        return [(0, side)]
    starts = [index * (side - CROP) // (GRID - 1) // BLOCK * BLOCK for index in range(GRID)]
    return [(start, start + CROP) for start in starts]


def _of_blocks(planes: Bytes, best: np.ufunc) -> Bytes:
    """``(3, H, W)`` -> ``(3, blocks)``: the largest or smallest pixel of every block of `_blocks`.

    Eight pixels at a time, each from another row or column: reducing an axis of eight itself is many times slower.
    """
    rows, columns = planes.shape[1] // BLOCK * BLOCK, planes.shape[2] // BLOCK * BLOCK
    for_rows = functools.reduce(best, (planes[:, row:rows:BLOCK, :columns] for row in range(BLOCK)))
    found: Bytes = functools.reduce(best, (for_rows[:, :, column::BLOCK] for column in range(BLOCK)))
    return found.reshape(3, -1)


def _blocks(planes: Bytes) -> Bytes:
    """``(3, H, W)`` -> ``(3, blocks, 8, 8)``; what does not fill a block at the right and bottom is left out."""
    rows, columns = planes.shape[1] // BLOCK, planes.shape[2] // BLOCK
    whole = planes[:, : rows * BLOCK, : columns * BLOCK].reshape(3, rows, BLOCK, columns, BLOCK)
    return whole.transpose(0, 1, 3, 2, 4).reshape(3, -1, BLOCK, BLOCK)


def _planes(pixels: Pixels) -> Bytes:
    """``(H, W, 3)`` -> ``(3, H, W) uint8``: numpy reduces planes many times faster than interleaved channels."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if planes.dtype != np.uint8:
        planes = np.asarray(np.clip(planes, 0, 1) * np.float32(255) + np.float32(0.5))
    return planes.astype(np.uint8, copy=False)
