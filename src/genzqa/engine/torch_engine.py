"""Scoring by torch, on a CPU or an accelerator."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genzqa.engine.batch_size import Way
from genzqa.engine.engine import FEW, Engine
from genzqa.engine.scoring_pass import ScoringPass
from genzqa.model.genzvqa import FrameReadings

if TYPE_CHECKING:
    from genzqa.model.genziqa import GenzIQA

_log = logging.getLogger(__name__)
COMPILE_AFTER = 512  # images: from there on a minute of compiling is worth it on a GPU
SMALL = (
    50_000_000  # parameters; a larger network keeps all cores busy with one call, and several would take gigabytes each
)
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # as torch's allocators say it


class TorchEngine(Engine):
    """Runs a `ScoringPass`; on a CUDA GPU, once many images have come, compiled and its kernels replayed as a CUDA graph.

    Args:
        plan: On the device it is to run on.
        key: See `Engine`.
    """

    def __init__(self, plan: ScoringPass, key: str) -> None:
        super().__init__(plan.unet.blocks, plan.model.config.preprocessing.size, key)
        plan.eval()
        self._device = plan.noise.device
        # one photo at a time: the encoder's activations then stay small enough for the allocator to keep them
        plan.encodes = 1 if self._device.type == "cpu" else None
        for part in (plan.model.vae, plan.model.unet):
            nn.Module.to(part, memory_format=torch.channels_last)  # type: ignore[call-overload]  # the part's own is slow to import
        self._pass, self._images = plan, 0
        self._compiled: Any = None
        self._compiled_size = 0
        self._workers: tuple[int, ThreadPoolExecutor] | None = None
        self._small = sum(parameter.numel() for parameter in plan.parameters()) < SMALL

    def compile(self, size: int) -> None:
        """Compile the pass for calls of ``size`` images, which takes a minute at the next such call; others stay as they are."""
        self._compiled = torch.compile(self._pass, mode="reduce-overhead", fullgraph=True, dynamic=False)
        self._compiled_size = size

    def _replayed(self, pixels: Tensor) -> Any:
        try:
            return self._compiled(pixels)
        except Exception as error:  # compilers need more than torch: another compiler, a writable folder
            if _ran_out(error):
                raise
            _log.warning(
                "this machine cannot compile the model, which stays slower: %s", str(error).strip().partition("\n")[0]
            )
            self._compiled_size, self._images = 0, -(1 << 62)  # never again
            return self._pass(pixels)

    def run(self, pixels: Tensor) -> FrameReadings:
        """See `Engine.run`."""
        count = len(pixels)
        self._images += count
        if (
            self._device.type == "cuda"
            and self._images > COMPILE_AFTER
            and self._way is not None
            and count == self._way.photos != self._compiled_size
        ):
            self.compile(count)
        with torch.inference_mode(), memory_errors(), single_precision_kept():
            moved = pixels.to(self._device)
            raw, blocks, queries = self._replayed(moved) if count == self._compiled_size else self._pass(moved)
            found = [one.float().cpu() for one in (raw, blocks, *queries)]
        return FrameReadings(found[0], found[1], found[2:])

    @property
    def calls_at_once(self) -> Sequence[int]:
        """Of a small network on a CPU one call per core: cores that share a call wait for each other at every layer."""
        threads = torch.get_num_threads()
        if self._device.type != "cpu" or threads == 1 or not self._small:
            return (1,)
        return (threads,) if threads <= FEW else (1, threads)  # with many cores one call is tried as well

    @property
    def first_way(self) -> Way:
        """One call per core where a few images can do with that."""
        calls = self.calls_at_once[-1]
        return Way(FEW // calls, calls) if calls <= FEW else Way(FEW)

    def run_all(self, parts: Sequence[Tensor], calls: int) -> list[FrameReadings]:
        """See `Engine.run_all`."""
        if calls == 1 or len(parts) == 1:
            return super().run_all(parts, calls)
        if self._workers is None or self._workers[0] != calls:
            self._workers = calls, ThreadPoolExecutor(calls, "genzqa-core", torch.set_num_threads, (1,))
        with _one_thread_a_call():
            return list(self._workers[1].map(self.run, parts))


class PlainEngine(Engine):
    """Runs `GenzIQA` as training does, for bases that `ScoringPass` does not know.

    Args:
        model: On the device it is to run on.
        timesteps, last_queries: As `ScoringPass`.
        key: See `Engine`.
    """

    def __init__(self, model: GenzIQA, timesteps: int, last_queries: bool, key: str) -> None:
        super().__init__(model.blocks, model.config.preprocessing.size, key)
        self._model, self._timesteps, self._last = model.eval(), timesteps, last_queries

    def run(self, pixels: Tensor) -> FrameReadings:
        """See `Engine.run`."""
        from genzqa.model.genzvqa import readings

        with torch.inference_mode(), memory_errors(), single_precision_kept():
            scored = self._model(pixels.to(self._model.alphas_cumprod.device), timesteps=self._timesteps)
            found = readings(self._model, scored, last_queries=self._last)
            return FrameReadings(found.raw.cpu(), found.block_scores.cpu(), [one.cpu() for one in found.queries])


@contextmanager
def memory_errors() -> Iterator[None]:
    """Torch's ways to say that memory ran out, as `MemoryError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from None
    except RuntimeError as error:
        if _ran_out(error):
            raise MemoryError(str(error)) from None
        raise


def _ran_out(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


@contextmanager
def _one_thread_a_call() -> Iterator[None]:
    """Some of the libraries under torch have one number of threads for the whole process, others one for every thread: set it here
    and in the workers, and leave this thread with the one it had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def single_precision_kept() -> Iterator[None]:
    """No TF32 where single precision was asked for: a GPU then gives the scores of a CPU."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept
