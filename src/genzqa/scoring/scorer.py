"""The scorer: sources in, results out. Everything a user calls to score photos goes through here."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch

from genzqa import __version__
from genzqa.errors import InputError, ModelCorruptError, NotTrainedError
from genzqa.limits import DEFAULT_LIMITS, Limits
from genzqa.media.domain import domain_notes
from genzqa.media.image import ImageSource, Photo, decode_image
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.adapter import LoadedScorer, load_scorer
from genzqa.model.diffusion import scoring_timesteps
from genzqa.notes import Note
from genzqa.result import FailedResult, ImageResult, Provenance, grade_of
from genzqa.scoring.calibration import calibrate
from genzqa.scoring.quality_map import quality_maps


def load(model: str = "mini", *, limits: Limits = DEFAULT_LIMITS, offline: bool = False) -> Scorer:
    """Load a scorer.

    Args:
        model: ``mini`` (embedded, works offline) or ``local-dir:FOLDER`` for an adapter of one's own.
        limits: What an input may be at most.
        offline: Never open a network connection, even if the adapter's base is not on this machine.

    Raises:
        ModelError, ConfigError: See `genzqa.errors`.

    Example:
        >>> import genzqa
        >>> scorer = genzqa.load()
        >>> scorer.config.name
        'mini'
    """
    return Scorer(load_scorer(model, offline=offline), limits=limits)


@dataclass(frozen=True)
class _Prepared:
    """A decoded photo on its way to the network."""

    name: str
    width: int
    height: int
    notes: tuple[Note, ...]
    pixels: torch.Tensor
    seconds: float


class Scorer:
    """Scores photos with one model; the same photo gets the same score alone, in a batch, and in another process.

    Raises:
        NotTrainedError: If the model has no calibration; its number would not mean anything.
    """

    def __init__(self, loaded: LoadedScorer, *, limits: Limits = DEFAULT_LIMITS) -> None:
        if loaded.config.calibration is None:
            raise NotTrainedError("this model has no calibration; its score would mean nothing", subject=loaded.name,
                                  hint="train it, or fit a calibration on photos with known MOS")  # fmt: skip
        self.model, self.config, self.limits = loaded.model.eval(), loaded.config, limits
        self._calibration = loaded.config.calibration
        self.provenance = Provenance(
            model=loaded.config.name,
            base=loaded.config.base,
            weights_sha256=loaded.weights_sha256,
            base_sha256=loaded.base_sha256,
            preprocessing=loaded.config.preprocessing.name,
            timesteps=scoring_timesteps(loaded.config.timesteps),
            seed=loaded.config.seed,
            version=__version__,
        )

    def score(self, source: ImageSource, *, quality_map: bool = False) -> ImageResult:
        """Score one photo: a path, bytes, PIL image, NumPy array ``(H, W, 3)`` or tensor ``(3, H, W)``.

        Raises:
            InputError: If the photo cannot be read or is over a limit.
        """
        return self._score_batch([self._prepare(source)], quality_map)[0]

    def score_many(self, sources: Iterable[ImageSource], *, batch_size: int = 4, quality_map: bool = False) -> Iterator[
        ImageResult | FailedResult
    ]:  # fmt: skip
        """Score photos in order, one result per source; a bad one yields a `FailedResult` and the others go on.

        The next batch is decoded while one is scored. Nothing grows with the number of sources.
        """
        remaining = iter(sources)
        with ThreadPoolExecutor(1, "genzqa-decode") as decoder:
            ahead: Future[list[_Prepared | FailedResult]] | None = None
            while batch := list(islice(remaining, max(1, batch_size))):
                following = decoder.submit(self._prepare_batch, batch)
                if ahead is not None:
                    yield from self._results(ahead.result(), quality_map)
                ahead = following
            if ahead is not None:
                yield from self._results(ahead.result(), quality_map)

    def _prepare_batch(self, sources: Sequence[ImageSource]) -> list[_Prepared | FailedResult]:
        prepared: list[_Prepared | FailedResult] = []
        for source in sources:
            try:
                prepared.append(self._prepare(source))
            except InputError as error:
                prepared.append(FailedResult(error.subject, error, self.provenance))
        return prepared

    def _prepare(self, source: ImageSource) -> _Prepared:
        started = time.perf_counter()
        photo: Photo = decode_image(source, limits=self.limits)
        resized = resize_square(photo.pixels, self.config.preprocessing.size)
        notes = (*photo.notes, *domain_notes(photo.pixels))
        seconds = time.perf_counter() - started
        return _Prepared(photo.name, photo.width, photo.height, notes, to_network(resized), seconds)

    def _results(
        self, prepared: Sequence[_Prepared | FailedResult], quality_map: bool
    ) -> Iterator[ImageResult | FailedResult]:
        scored = iter(self._score_batch([one for one in prepared if isinstance(one, _Prepared)], quality_map))
        for one in prepared:
            yield one if isinstance(one, FailedResult) else next(scored)

    def _score_batch(self, photos: Sequence[_Prepared], quality_map: bool) -> list[ImageResult]:
        if not photos:
            return []
        started = time.perf_counter()
        pixels = torch.stack([photo.pixels for photo in photos])
        maps: list[torch.Tensor | None] = [None] * len(photos)
        if quality_map:
            raw, drawn = quality_maps(self.model, pixels)
            maps = list(drawn)
        else:
            with torch.inference_mode():
                raw = self.model(pixels).raw
        if not raw.isfinite().all():
            raise ModelCorruptError("the model's output is not a number", subject=self.provenance.model,
                                    hint="its weights are damaged; run `genzqa verify`")  # fmt: skip
        share = (time.perf_counter() - started) / len(photos)
        return [self._result(photo, float(value), share, drawn_map)
                for photo, value, drawn_map in zip(photos, raw, maps, strict=True)]  # fmt: skip

    def _result(self, photo: _Prepared, raw: float, seconds: float, drawn: torch.Tensor | None) -> ImageResult:
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
