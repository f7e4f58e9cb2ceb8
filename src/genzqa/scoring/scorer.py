"""The scorer: sources in, results out. Everything a user calls to score photos and videos goes through here."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

import torch

from genzqa import __version__
from genzqa.engine.engine import MANY, Backend, EngineOptions, Precision
from genzqa.engine.open import OpenModel, open_model
from genzqa.errors import InputError, ModelCorruptError, NotTrainedError
from genzqa.limits import DEFAULT_LIMITS, Limits
from genzqa.media.image import ImageSource
from genzqa.media.prepare import PreparedPhoto, prepare_photo
from genzqa.media.preprocess import to_network
from genzqa.media.video_sniff import is_video_file, named_kind
from genzqa.model.diffusion import scoring_timesteps
from genzqa.model.hub import is_offline
from genzqa.model.motion_weights import load_motion
from genzqa.notes import Note
from genzqa.result import FailedResult, ImageResult, Provenance, grade_of
from genzqa.scoring.calibration import calibrate
from genzqa.scoring.quality_map import quality_maps
from genzqa.scoring.video_options import Progress, VideoOptions
from genzqa.video_result import VideoResult

Result: TypeAlias = ImageResult | VideoResult | FailedResult
_DEFAULT_OPTIONS = VideoOptions()


def load(model: str = "mini", *, limits: Limits = DEFAULT_LIMITS, offline: bool = False, backend: Backend = "torch",
         precision: Precision = "fp32", device: str = "auto") -> Scorer:  # fmt: skip
    """Load a scorer.

    Args:
        model: ``mini`` or ``mini-student`` (embedded, they work offline); or ``local-dir:FOLDER`` for an adapter of one's
            own, a student or an exported model.
        limits: What an input may be at most.
        offline: Never open a network connection, even if the adapter's base is not on this machine.
        backend, precision, device: How the model is run; see `genzqa.EngineOptions`. An exported model is run as it was
            exported.

    Raises:
        ModelError, ConfigError: See `genzqa.errors`.

    Example:
        >>> import genzqa
        >>> scorer = genzqa.load()
        >>> scorer.config.name
        'mini'
    """
    return load_as(model, EngineOptions(backend, precision, device), limits=limits, offline=offline)


def load_as(model: str, options: EngineOptions | None, *, limits: Limits, offline: bool) -> Scorer:
    """As `load`, with the way to run it as one object, for programs that pass it on to other processes."""
    return Scorer(open_model(model, options or EngineOptions(), offline=offline), limits=limits, offline=offline)


@dataclass(frozen=True)
class _Video:
    """A video in the place of a decoded photo; it is decoded while it is scored."""

    source: str | os.PathLike[str] | bytes


_Ready: TypeAlias = "PreparedPhoto | _Video | FailedResult"


class Scorer:
    """Scores photos and videos with one model; the same input gets the same score alone, in a batch, and in another
    process.

    Raises:
        NotTrainedError: If the model has no calibration; its number would not mean anything.
    """

    def __init__(self, model: OpenModel, *, limits: Limits = DEFAULT_LIMITS, offline: bool = False) -> None:
        if model.config.calibration is None:
            raise NotTrainedError("this model has no calibration; its score would mean nothing", subject=model.name,
                                  hint="train it, or fit a calibration on photos with known MOS")  # fmt: skip
        self.model, self._offline = model, is_offline(offline)
        self.config, self.limits = model.config, limits
        self._calibration = model.config.calibration
        self.provenance = Provenance(
            model=model.config.name,
            base=model.config.base,
            weights_sha256=model.weights_sha256,
            base_sha256=model.base_sha256,
            preprocessing=model.config.preprocessing.name,
            timesteps=model.timesteps,
            seed=model.config.seed,
            backend=model.options.backend,
            precision=model.options.precision,
            version=__version__,
        )

    @property
    def draws_maps(self) -> bool:
        """Whether this model can tell where a photo loses its score; a student or an exported graph cannot."""
        return self.model.network is not None

    def score(self, source: ImageSource, *, quality_map: bool = False, video: VideoOptions = _DEFAULT_OPTIONS,
              progress: Progress | None = None) -> ImageResult | VideoResult:  # fmt: skip
        """Score one photo or video.

        Args:
            source: A path or bytes of a photo or video file; or a photo as PIL image, NumPy array ``(H, W, 3)`` or tensor
                ``(3, H, W)``.
            quality_map: Whether a photo's result, or that of a video of one frame, carries its quality map.
            video: What part of a video, and what to find out besides the score.
            progress: Called with the frames scored so far and in all, for a video.

        Raises:
            InputError: If it cannot be read or is over a limit.
            ConfigError: If a map is asked of a model that draws none.
        """
        if quality_map:
            self.model.require_drawing()
        if (film := _as_video(source)) is not None:
            return self._score_video(film, quality_map, video, progress)
        return self.score_image(source, quality_map=quality_map)

    def score_image(self, source: ImageSource, *, quality_map: bool = False) -> ImageResult:
        """Score one photo; as `score`, for a source that is known to be one."""
        return self.score_prepared([self._prepare(source)], quality_map=quality_map)[0]

    def score_many(self, sources: Iterable[ImageSource], *, batch_size: int = MANY, quality_map: bool = False,
                   video: VideoOptions = _DEFAULT_OPTIONS,
                   progress: Callable[[str, int, int], None] | None = None) -> Iterator[Result]:  # fmt: skip
        """Score in order, one result per source; a bad one yields a `FailedResult` and the others go on.

        The next batch is decoded while one is scored. Nothing grows with the number of sources. ``progress`` is called
        with the name, frames scored and frames in all of a video that is being scored.
        """
        if quality_map:
            self.model.require_drawing()
        remaining = iter(sources)
        with ThreadPoolExecutor(1, "genzqa-decode") as decoder:
            ahead: Future[list[_Ready]] | None = None
            while batch := list(islice(remaining, max(1, batch_size))):
                following = decoder.submit(self._prepare_batch, batch)
                if ahead is not None:
                    yield from self._results(ahead.result(), quality_map, video, progress)
                ahead = following
            if ahead is not None:
                yield from self._results(ahead.result(), quality_map, video, progress)

    def _score_video(self, film: _Video, quality_map: bool, options: VideoOptions,
                     progress: Progress | None = None) -> ImageResult | VideoResult:  # fmt: skip
        """A video with one frame scores as its image does."""
        from genzqa.media.video import open_video  # imports the video decoder, which photos do without
        from genzqa.scoring.video import score_video

        provenance = self.provenance
        if self.config.video is not None:
            if self.model.motion is None and isinstance(self.config.video.motion, str):  # large; only videos need it
                motion, digest = load_motion(self.config.video.motion, offline=self._offline)
                self.model.motion, self.model.motion_sha256 = motion.to(self.model.options.torch_device()), digest
            provenance = dataclasses.replace(provenance, timesteps=scoring_timesteps(self.config.video.timesteps))
        with open_video(film.source, self.limits) as reader:
            result = score_video(self.model, self._calibration, provenance, reader, options, progress)
            if result is not None:
                return result
            frame = next(iter(reader.moments([0.0]))).pixels
            single = self.score_image(frame, quality_map=quality_map)
            note = Note("single_frame", "A video of one frame; scored as the photo it is.")
            return dataclasses.replace(single, input=reader.name, notes=(*reader.notes, *single.notes, note))

    def _prepare_batch(self, sources: Sequence[ImageSource]) -> list[_Ready]:
        prepared: list[_Ready] = []
        for source in sources:
            try:
                prepared.append(_as_video(source) or self._prepare(source))
            except InputError as error:
                prepared.append(FailedResult(error.subject, error, self.provenance, named_kind(error.subject)))
        return prepared

    def _prepare(self, source: ImageSource) -> PreparedPhoto:
        return prepare_photo(source, self.config.preprocessing.size, limits=self.limits)

    def _results(self, prepared: Sequence[_Ready], quality_map: bool, video: VideoOptions,
                 progress: Callable[[str, int, int], None] | None) -> Iterator[Result]:  # fmt: skip
        scored = iter(
            self.score_prepared([one for one in prepared if isinstance(one, PreparedPhoto)], quality_map=quality_map)
        )
        for one in prepared:
            if isinstance(one, FailedResult):
                yield one
            elif isinstance(one, PreparedPhoto):
                yield next(scored)
            else:
                try:
                    name = "<bytes>" if isinstance(one.source, bytes) else os.fsdecode(one.source)
                    yield self._score_video(one, quality_map, video, partial(progress, name) if progress else None)
                except InputError as error:
                    yield FailedResult(error.subject, error, self.provenance, "video")

    def score_prepared(self, photos: Sequence[PreparedPhoto], *, quality_map: bool = False) -> list[ImageResult]:
        """Score photos that were decoded elsewhere, all in one call of the network; one result each, in order.

        Args:
            photos: From `genzqa.media.prepare.prepare_photo` with this model's ``config.preprocessing.size``.
            quality_map: Whether the results carry quality maps.

        Raises:
            ModelCorruptError: The model's output is not a number.
            ConfigError: Maps are wanted of a model that cannot draw them.
        """
        if not photos:
            return []
        started = time.perf_counter()
        pixels = torch.stack([to_network(photo.pixels) for photo in photos])
        maps: list[torch.Tensor | None] = [None] * len(photos)
        if quality_map:
            raw, drawn = quality_maps(self.model.require_drawing(), pixels)
            maps = list(drawn)
        else:
            raw = self.model.photos.read(pixels).raw
        if not raw.isfinite().all():
            raise ModelCorruptError("the model's output is not a number", subject=self.provenance.model,
                                    hint="its weights are damaged; run `genzqa verify`")  # fmt: skip
        share = (time.perf_counter() - started) / len(photos)
        return [self._result(photo, float(value), share, drawn_map)
                for photo, value, drawn_map in zip(photos, raw, maps, strict=True)]  # fmt: skip

    def _result(self, photo: PreparedPhoto, raw: float, seconds: float, drawn: torch.Tensor | None) -> ImageResult:
        score, interval, percentile = calibrate(raw, self._calibration)
        quality_map = None
        if drawn is not None:
            quality_map = (drawn - raw + score).numpy().astype("float32")
        return ImageResult(
            input=photo.name,
            score=score,
            raw=raw,
            interval=interval,
            grade=grade_of(score),
            percentile=percentile,
            provenance=self.provenance,
            width=photo.width,
            height=photo.height,
            notes=photo.notes,
            seconds=photo.seconds + seconds,
            quality_map=quality_map,
        )


def _as_video(source: ImageSource) -> _Video | None:
    """A path or bytes whose content is a video container."""
    if isinstance(source, str | os.PathLike | bytes) and is_video_file(source):
        return _Video(source)
    return None
