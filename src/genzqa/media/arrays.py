"""Pictures that are already in memory as numbers: numpy arrays and torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from genzqa.errors import CorruptInputError, UnsupportedFormatError
from genzqa.media.colour import to_pixels
from genzqa.media.pixels import ALPHA_NOTE, GREY, Pixels
from genzqa.notes import Note

if TYPE_CHECKING:
    import torch

_BATCH_HINT = "give one picture at a time"


def array_to_hwc(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view of shape ``(H, W, C)`` with C of 1, 3 or 4, from ``(H, W)`` or ``(H, W, C)``.

    Raises:
        UnsupportedFormatError: Another shape.
        CorruptInputError: No pixels.
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        if array.ndim == 4:
            hint = _BATCH_HINT
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "this looks like (C, H, W); move the channels last with array.transpose(1, 2, 0)"
        else:
            hint = "arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
        raise UnsupportedFormatError(f"an array of shape {array.shape} is not one picture", hint=hint)
    return _with_pixels(array)


def tensor_to_hwc(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """A numpy array ``(H, W, C)`` with C of 1, 3 or 4, from a tensor ``(H, W)`` or ``(C, H, W)`` on any device.

    Raises:
        UnsupportedFormatError: Another shape, or a tensor without plain storage (sparse, quantised, meta).
        CorruptInputError: No pixels.
    """
    shape = tuple(tensor.shape)
    try:
        plain = tensor.detach().cpu()
        # numpy has no bfloat16; float32 holds each of its values exactly.
        array = (plain.float() if plain.is_floating_point() else plain).numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise UnsupportedFormatError("not a plain dense tensor", hint="give a dense uint8 or float tensor") from error
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] not in (1, 3, 4):
        if array.ndim == 4:
            hint = _BATCH_HINT
        elif array.ndim == 3 and array.shape[2] in (1, 3, 4):
            hint = "this looks like (H, W, C); move the channels first with tensor.permute(2, 0, 1)"
        else:
            hint = "tensors are (H, W), (1, H, W), (3, H, W) or (4, H, W)"
        raise UnsupportedFormatError(f"a tensor of shape {shape} is not one picture", hint=hint)
    return _with_pixels(array.transpose(1, 2, 0))


def _with_pixels(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.size == 0:
        raise CorruptInputError("a picture of zero size", hint="check how it was cropped or loaded")
    return array


def hwc_to_pixels(array: npt.NDArray[Any]) -> tuple[Pixels, list[Note]]:
    """Convert ``(H, W, C)`` samples; the result shares no memory with them.

    Args:
        array: uint8, bool, uint16 (full scale 65535) or floating point in 0..1.

    Raises:
        UnsupportedFormatError: Another dtype, or floats outside 0..1.
        CorruptInputError: NaN or infinity.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint8:
        # The same path as for files, so that equal pictures give equal pixels.
        return to_pixels(Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array)))
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        samples = array.astype(np.float32) / np.float32(65535)
    elif array.dtype.kind == "f":
        samples = _checked_floats(array)
    else:
        raise UnsupportedFormatError(
            f"samples of type {array.dtype} have no known white", hint="give uint8, uint16, or floats in 0..1"
        )
    notes: list[Note] = []
    colour = samples[..., :3]
    if array.shape[2] == 4:
        alpha = samples[..., 3:]
        if (alpha < 1).any():
            colour = colour * alpha + np.float32(GREY / 255) * (1 - alpha)
            notes.append(ALPHA_NOTE)
    return np.array(np.broadcast_to(colour, (*colour.shape[:2], 3)), dtype=np.float32, order="C"), notes


def _checked_floats(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if not np.isfinite(array).all():
        raise CorruptInputError("samples are NaN or infinite", hint="check the step that made this picture")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        hint = "divide by 255, or give uint8" if low >= 0 and high > 2 else "scale or clip to 0..1"
        raise UnsupportedFormatError(f"floating-point samples from {low:g} to {high:g}, not in 0..1", hint=hint)
    return array.astype(np.float32)
