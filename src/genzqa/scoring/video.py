"""From a video file to its result: one thread decodes ahead, one reads the motion of clips, and frames are read beside both."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import math
import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from genzqa.engine.open import OpenModel
from genzqa.errors import InputError
from genzqa.media.preprocess import resize_square, to_network
from genzqa.media.video import Moment, VideoReader, uniform_times
from genzqa.model.genzvqa import FRAMES_AT_ONCE, FrameReadings, modulate
from genzqa.model.motion import clip_features
from genzqa.notes import Note
from genzqa.result import Provenance, grade_of
from genzqa.scoring.calibration import calibrate
from genzqa.scoring.quality_map import quality_maps
from genzqa.scoring.video_options import Progress, VideoOptions
from genzqa.video_result import IN_ADAPTER, FrameCounts, FrameScore, VideoResult, WorstFrame

if TYPE_CHECKING:
    from genzqa.model.config import Calibration, VideoConfig
    from genzqa.model.slowfast import SlowFastConfig

DEFAULT_FRAMES = 8
MOST_TIMELINE_POINTS = 600  # of a timeline; longer videos get them evenly spread
_DAMAGED = {"truncated", "corrupt_frames", "frames_missing", "begins_late"}  # of such a video one frame says nothing
SHORTEST = 4  # a clip with fewer than one part in so many of its frames real tells nothing of the motion
CLIPS_AHEAD = FRAMES_AT_ONCE  # waiting for the motion network; those of a large one take 34 MB each
WORST_SIDE = 640  # pixels, longest side of a frame kept for the report


@dataclass
class _Seen:
    """What has been read so far; the worst frames are kept in a bounded heap, all others are let go."""

    scored: list[FrameScore] = field(default_factory=list)
    timeline: list[FrameScore] = field(default_factory=list)
    readings: list[FrameReadings] = field(default_factory=list)
    motion: list[tuple[int, Future[tuple[torch.Tensor, torch.Tensor]]]] = field(default_factory=list)
    worst: list[tuple[float, float, FrameScore, _Frame]] = field(default_factory=list)


@dataclass(frozen=True)
class _Frame:
    """A decoded moment on its way to the network, and whether it counts for the score, the timeline, or both.

    Several of these are held at a time, so the moment's own pixels are reduced: deep ones of 8K are 400 MB a frame.
    """

    moment: Moment
    pixels: torch.Tensor
    counts: bool
    on_timeline: bool


def score_video(model: OpenModel, calibration: Calibration, provenance: Provenance, reader: VideoReader,
                options: VideoOptions, progress: Progress | None = None) -> VideoResult | None:  # fmt: skip
    """Score an open video; None if it turns out to have one frame only, which is a photo.

    Raises:
        InputError: If the video cannot be read, or nothing of it lies in the part asked for.
    """
    started = time.perf_counter()
    facts, config = reader.facts, model.config.video
    span = _span(reader, options)
    count = options.frames or (config.frames if config else DEFAULT_FRAMES)
    plan = _plan(span, count, options.timeline)
    seen = _Seen()
    with (
        _prepared(model, reader, plan, config) as frames,
        ThreadPoolExecutor(1, "genzqa-motion") as beside,
        torch.inference_mode(),
    ):
        for done, batch in _batches(frames):
            _follow(model, batch, seen, beside)
            _read(model, calibration, batch, seen, options.worst_frames)
            if progress is not None:
                progress(done, len(plan))
    if progress is not None:
        progress(len(plan), len(plan))
    if reader.tally.decoded == 1 and not {note.code for note in reader.notes} & _DAMAGED:
        return None
    raw, gamma, notes = _combine(model, seen)
    score, interval, percentile = calibrate(raw, (config.calibration if config else None) or calibration)
    every = {frame.time: frame for frame in [*seen.timeline, *seen.scored]}
    return VideoResult(
        input=reader.name,
        score=score,
        raw=raw,
        interval=interval,
        grade=grade_of(score),
        percentile=percentile,
        provenance=provenance,
        width=facts.width,
        height=facts.height,
        duration=span[1],
        frame_rate=facts.frame_rate,
        frames=tuple(seen.scored),
        worst=min(every.values(), key=lambda frame: (frame.score, frame.time)),
        timeline=tuple(seen.timeline) if options.timeline else None,
        gamma=gamma,
        counts=FrameCounts(reader.tally.declared, reader.tally.decoded, reader.tally.corrupt),
        stream=_stream_record(reader),
        notes=(*reader.notes, *notes, *_notes(model)),
        seconds=time.perf_counter() - started,
        worst_frames=_worst_frames(model, seen),
        motion=(config.motion if isinstance(config.motion, str) else IN_ADAPTER) if config else None,
        motion_sha256=model.motion_sha256,
    )


def _span(reader: VideoReader, options: VideoOptions) -> tuple[float, float]:
    """Start and length in seconds of the part to score."""
    whole = reader.facts.duration
    if options.start >= whole:
        raise InputError(f"the video ends after {whole:.2f} seconds, before the start asked for ({options.start:g})",
                         subject=reader.name, hint="start earlier")  # fmt: skip
    left = whole - options.start
    return options.start, min(left, options.duration) if options.duration is not None else left


def _plan(span: tuple[float, float], count: int, timeline: bool) -> list[tuple[float, bool, bool]]:
    """Ascending times, each with whether it counts for the score and whether it belongs to the timeline."""
    start, length = span
    plan = dict.fromkeys(uniform_times(length, count, start), (True, False))
    if timeline:
        points = min(MOST_TIMELINE_POINTS, max(1, math.ceil(length)))
        for at in uniform_times(length, points, start):
            plan[at] = (plan.get(at, (False, False))[0], True)
    return [(at, *plan[at]) for at in sorted(plan)]


@contextlib.contextmanager
def _prepared(
    model: OpenModel, reader: VideoReader, plan: list[tuple[float, bool, bool]], config: VideoConfig | None
) -> Generator[Iterator[_Frame]]:
    """The planned frames, decoded and resized by a thread that runs a few frames ahead and ends with the block."""
    ready: queue.Queue[_Frame | BaseException | None] = queue.Queue(maxsize=FRAMES_AT_ONCE)
    stop = threading.Event()
    size = model.config.preprocessing.size
    motion = model.motion if model.modulator is not None else None
    clip = motion.config.frames if motion is not None else 0

    def put(item: _Frame | BaseException | None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def produce() -> None:
        try:
            times = [at for at, _, _ in plan]
            side, rate = (config.motion_size, config.motion_rate) if config else (1, None)
            moments = reader.moments(times, clip_frames=clip, clip_side=side, clip_rate=rate)
            for moment, counts, on_timeline in distinct(moments, plan):
                pixels = to_network(resize_square(moment.pixels, size))
                if not put(_Frame(_reduced(moment), pixels, counts, on_timeline)):
                    return
            put(None)
        except BaseException as error:  # whatever it is, the scoring thread must hear of it
            put(error)

    def consume() -> Iterator[_Frame]:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=produce, name="genzqa-decode", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stop.set()
        thread.join()


def _reduced(moment: Moment) -> Moment:
    """With 8-bit pixels of at most `WORST_SIDE`."""
    pixels = moment.pixels
    eight_bit = pixels if pixels.dtype == np.uint8 else (255 * pixels).round().astype(np.uint8)
    small = Image.fromarray(np.asarray(eight_bit, np.uint8))
    small.thumbnail((WORST_SIDE, WORST_SIDE), Image.Resampling.BICUBIC)
    return dataclasses.replace(moment, pixels=np.asarray(small))


def distinct(moments: Iterator[Moment], plan: list[tuple[float, bool, bool]]) -> Iterator[tuple[Moment, bool, bool]]:
    """Every frame once, though several planned times may fall on it: a short video has fewer frames than are asked for."""
    held: tuple[Moment, bool, bool] | None = None
    for moment, (_, counts, on_timeline) in zip(moments, plan, strict=False):  # a truncated file gives fewer moments
        if held is not None and held[0].time == moment.time:
            held = held[0], held[1] or counts, held[2] or on_timeline
            continue
        if held is not None:
            yield held
        held = moment, counts, on_timeline
    if held is not None:
        yield held


def _batches(frames: Iterator[_Frame]) -> Iterator[tuple[int, list[_Frame]]]:
    """Groups of frames for one call of the network, each with how many there were up to it."""
    batch: list[_Frame] = []
    done = 0
    for frame in frames:
        batch.append(frame)
        if len(batch) == FRAMES_AT_ONCE:
            done += len(batch)
            yield done, batch
            batch = []
    if batch:
        yield done + len(batch), batch


def _follow(model: OpenModel, batch: list[_Frame], seen: _Seen, beside: ThreadPoolExecutor) -> None:
    """Have the motion of their clips read while the frames are; few clips wait at a time."""
    if model.motion is None:
        return
    for frame in batch:
        if frame.counts and frame.moment.clip is not None:
            seen.motion.append(
                (frame.moment.clip_frames, beside.submit(clip_features, model.motion, frame.moment.clip))
            )
            if len(seen.motion) > CLIPS_AHEAD:
                seen.motion[-CLIPS_AHEAD - 1][1].result()


def _read(model: OpenModel, calibration: Calibration, batch: list[_Frame], seen: _Seen, keep: int) -> None:
    pixels = torch.stack([frame.pixels for frame in batch])
    readings = model.frames().read(pixels)
    raw = readings.raw
    if model.modulator is not None:
        chosen = torch.tensor([frame.counts for frame in batch])
        seen.readings.append(FrameReadings(raw[chosen], readings.block_scores[chosen],
                                           [query[chosen] for query in readings.queries]))  # fmt: skip
    for frame, value in zip(batch, raw.tolist(), strict=True):
        scored = FrameScore(frame.moment.time, calibrate(value, calibration)[0], value)
        if frame.counts:
            seen.scored.append(scored)
        if frame.on_timeline:
            seen.timeline.append(scored)
        if keep:
            entry = (-scored.score, -scored.time, scored, frame)
            if len(seen.worst) < keep:
                heapq.heappush(seen.worst, entry)
            elif entry[:2] > seen.worst[0][:2]:
                heapq.heapreplace(seen.worst, entry)


def _combine(model: OpenModel, seen: _Seen) -> tuple[float, tuple[float, ...], tuple[Note, ...]]:
    """Raw score, gamma of every layer, and remarks: modulated by motion, or the plain mean of the frames."""
    if model.modulator is None or model.motion is None or not seen.motion:
        return float(np.mean([frame.raw for frame in seen.scored])), (1.0,) * len(model.blocks), ()
    sizes = model.motion.config
    counted = counted_clips([real for real, _ in seen.motion], sizes.frames)
    slow, fast = motion_of([seen.motion[number][1].result() for number in counted], sizes)
    with torch.inference_mode():
        trace = modulate(model.modulator, FrameReadings.joined(seen.readings), slow, fast)
    brief = Note("no_motion", "Too short for its motion to be judged; the score is the mean of its frames.")
    return float(trace.score), tuple(trace.gamma.tolist()), () if counted else (brief,)


def counted_clips(real: Sequence[int], frames: int) -> list[int]:
    """Which clips count, by how many of their frames are real: one begun near the end is mostly its own echo, and counts
    only where no clip is fuller; none does where hardly any frame is real."""
    least = max(max(real, default=0) // 2, -(-frames // SHORTEST))
    return [number for number, found in enumerate(real) if found >= least]


def motion_of(
    clips: Sequence[tuple[torch.Tensor, torch.Tensor]], sizes: SlowFastConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slow and fast features of clips, stacked; of none, tensors without rows."""
    if not clips:
        return torch.zeros(0, sizes.slow_features), torch.zeros(0, sizes.fast_features)
    slow, fast = zip(*clips, strict=True)
    return torch.stack(slow), torch.stack(fast)


def _worst_frames(model: OpenModel, seen: _Seen) -> tuple[WorstFrame, ...]:
    if not seen.worst:
        return ()
    kept = []
    for _, _, scored, frame in sorted(seen.worst, key=lambda entry: entry[2].score):
        field = None
        if model.network is not None:
            raw, drawn = quality_maps(model.require_drawing(), frame.pixels[None])
            field = (drawn[0] + scored.score - float(raw[0])).numpy().astype(np.float32)
        kept.append(WorstFrame(scored, np.asarray(frame.moment.pixels, np.uint8), field))
    return tuple(kept)


def _stream_record(reader: VideoReader) -> dict[str, object]:
    record = dataclasses.asdict(reader.facts)
    for elsewhere in ("width", "height", "duration", "frame_rate", "frames_declared"):
        del record[elsewhere]
    return record


def _notes(model: OpenModel) -> tuple[Note, ...]:
    video = model.config.video
    if model.modulator is None or video is None:
        return (Note("frames_only", "The score is the mean over single frames: this model has no temporal part yet, so "
                                    "that stutter, freezes and flicker do not count."),)  # fmt: skip
    if video.calibration is None:
        return (Note("photo_calibration", "The 0-100 scale, interval and percentile were fitted on photos; how far off "
                                          "this model's scores of videos are has not been measured."),)  # fmt: skip
    return ()
