"""Scoring by OpenVINO on a CPU: faster than torch for large bases (docs/performance.md), and in bf16 where the CPU has it."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genzqa.engine import graph
from genzqa.engine.batch_size import Way
from genzqa.engine.engine import Engine, Precision
from genzqa.engine.integers import adds_exactly, to_integers
from genzqa.errors import ConfigError
from genzqa.model.cross_attention import Block
from genzqa.model.genzvqa import FrameReadings
from genzqa.model.registry import cache_folder

if TYPE_CHECKING:
    from genzqa.engine.scoring_pass import ScoringPass

ENCODER, READER = "encoder.xml", "reader.xml"
LARGE = 200_000_000  # bytes of weights, 50 million parameters in single precision: torch draws the line there as well
DAY = 86_400  # seconds
_core: Any = None
_core_lock = threading.Lock()


class OpenVINOEngine(Engine):
    """Runs the two graphs of a pass; see `genzqa.engine.graph`.

    Graphs of a large network are compiled for one image, and run on one after another: its timesteps and prompts are enough for one
    call, and where every size is known beforehand, norms and activations are put together.

    Args:
        encoder, reader: The path of each.
        blocks, size, key: See `Engine`.
        precision: Of the networks.
    """

    def __init__(
        self, encoder: Path, reader: Path, blocks: Sequence[Block], size: int, key: str, *, precision: Precision
    ) -> None:
        super().__init__(blocks, size, key)
        core = shared_core()
        self._one_by_one = _is_large(reader)
        if self._one_by_one:
            self._way = Way(1)  # known: to find it out, photos would be read several times over
        self._encoder = _compiled(core, encoder, precision, one_image=self._one_by_one)
        self._reader = _compiled(core, reader, precision, one_image=self._one_by_one)

    def run(self, pixels: Tensor) -> FrameReadings:
        """See `Engine.run`."""
        if self._one_by_one and len(pixels) > 1:
            return FrameReadings.joined([self.run(one) for one in torch.split(pixels, 1)])
        try:
            latents = self._encoder(pixels.float().contiguous().numpy())[graph.LATENTS]
            found = self._reader(latents)
        except RuntimeError as error:
            if "alloc" in str(error).lower():
                raise MemoryError(str(error)) from None
            raise
        raw, blocks, *queries = (torch.from_numpy(found[name].copy()) for name in graph.output_names(len(self.blocks)))
        return FrameReadings(raw, blocks, queries)


def shared_core() -> Any:
    """The process's one `openvino.Core`, which is never let go.

    A core's CPU plugin gives the thread that first uses it a stack for signal handlers, and takes it away when the core ends
    (OpenVINO 2026.4). Where cores end in another order than they began, or in another thread, a thread is left with one that is
    there no more, and the next signal that Python handles there, be it Ctrl-C, kills the process without a word.

    Raises:
        ConfigError: If the extra is not installed.
    """
    global _core
    with _core_lock:
        if _core is None:
            _core = graph.require("openvino", "openvino").Core()
        return _core


def _is_large(reader: Path) -> bool:
    return reader.with_suffix(".bin").stat().st_size > LARGE


def _compiled(core: Any, path: Path, precision: Precision, *, one_image: bool = False) -> Any:
    model = core.read_model(str(path))
    if one_image:
        model.reshape([1, *list(model.inputs[0].partial_shape)[1:]])
    hints = {"INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16", "PERFORMANCE_HINT": "LATENCY",
             "INFERENCE_NUM_THREADS": torch.get_num_threads()}  # fmt: skip
    return core.compile_model(model, "CPU", hints)


def converted(build: Callable[[], ScoringPass], key: str) -> tuple[Path, Path]:
    """The graphs of a pass in the cache folder, converted the first time and found again by ``key`` after it.

    Args:
        build: Makes the pass; called if it is needed.
        key: Names everything that decides the graphs.

    Raises:
        ConfigError: If the extra is not installed.
    """
    ov = graph.require("openvino", "openvino")
    digest = hashlib.sha256(f"{key}/{ov.__version__}".encode()).hexdigest()[:32]
    folder = cache_folder() / "openvino" / digest
    if not (folder / READER).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_away(folder.parent)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
        try:
            write_graphs(build(), made)
            with contextlib.suppress(OSError):  # another process was faster
                made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder / ENCODER, folder / READER


def _clear_away(folder: Path) -> None:
    """What a conversion left that was killed; one that still runs is younger."""
    for left in folder.glob(".making-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left)


def write_graphs(plan: ScoringPass, folder: Path) -> None:
    """`ENCODER` and `READER` with their weights beside them."""
    ov = graph.require("openvino", "openvino")
    for name, model in zip((ENCODER, READER), graph.to_openvino(plan), strict=True):
        ov.save_model(model, str(folder / name), compress_to_fp16=False)


def write_integers(exact: Path, folder: Path, photos: Sequence[Tensor], parts: Sequence[str]) -> None:
    """The graphs of `write_graphs`, some of them in integers (`genzqa.engine.integers`); what is there is written over.

    Args:
        exact: Folder with the graphs as they are.
        folder: Where these are written.
        photos: For the ranges of what is rounded, each ``(1, 3, size, size)`` in [-1, 1].
        parts: Which, of `ENCODER` and `READER`.

    Raises:
        ConfigError: If this processor cannot; see `require_integers`.
    """
    require_integers()
    folder.mkdir(exist_ok=True)
    ov, core = graph.require("openvino", "openvino"), shared_core()
    encoder = _compiled(core, exact / ENCODER, "fp32")
    given = {ENCODER: (photo.numpy() for photo in photos),
             READER: (encoder(photo.numpy())[graph.LATENTS] for photo in photos)}  # fmt: skip
    for name, inputs in given.items():
        model = core.read_model(str(exact / name))
        if name in parts:
            to_integers(model, inputs, core)
        for file in (folder / name, (folder / name).with_suffix(".bin")):
            file.unlink(missing_ok=True)  # of an attempt before, which may still be mapped
        ov.save_model(model, str(folder / name), compress_to_fp16=False)


def require_integers() -> None:
    """Refuse what would give other scores here than where it was checked.

    Raises:
        ConfigError: If this processor cuts off sums of integers of eight bits, or the extra is not installed.
    """
    if not adds_exactly(shared_core()):
        raise ConfigError("this processor does not add up products of eight-bit integers as they are: scores would be others",
                          hint="use a processor with VNNI instructions, or export the model in bf16 or fp32")  # fmt: skip
