"""Give the embedded model its temporal part: ``python training/video/temporal.py --biq2021 DIR --cache DIR --out DIR ...``.

Stage 1 cuts windows and stage 2 trains the motion network. Stage 3 reads the windows, and whole videos in ladders, with the
frozen motion network, and stage 4 with the frozen image model. Stage 5 trains the modulator in both forms, stage 6 writes it into
the adapter. What a stage has made is used again: a new image part needs stages 4, 5 and 6.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from faults import FAULTS, SHOWS_IN_FRAMES, Frames, frame_rate_share, motion_of
from graded import MILD, WHOLE, Floats, Reading, Source, frame_readings, read_frames, read_motion
from modulator import Ladders, Samples, intact_gamma, steps_of, train_modulator
from motion import MotionStage, Windows, ahead, batches, faulty, open_windows, still, to_clip
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from windows import Window, camera_moves, real_windows

from genzqa.engine.engine import Engine
from genzqa.engine.open import pass_key, pass_of
from genzqa.engine.openvino_engine import OpenVINOEngine, converted
from genzqa.media.preprocess import resize_square
from genzqa.model.adapter import WEIGHTS, load_scorer, save_adapter
from genzqa.model.config import MotionSizes, VideoConfig
from genzqa.model.modulator import TemporalQualityModulator
from genzqa.model.slowfast import SlowFast, SlowFastConfig
from genzqa.training.mini.export import HALF, write_manifest
from genzqa.training.mini.fitting import Average, keep, learning_rate
from genzqa.training.mini.photos import open_biq2021

FORMS = ("published", "ordered")
LADDERS = {"ladders": WHOLE, "mild": MILD}
TEMPORAL = "temporal part: "  # before its entries in the list of training data


def make_windows(arguments: argparse.Namespace, config: dict[str, Any], size: int) -> None:
    """``small.npy``, ``whole.npy`` (two frames as the image model sees them), ``coded-*.npy`` and ``windows.npz``."""
    plan, rng = config["windows"], np.random.default_rng(config["seed"])
    files = sorted(path for folder in arguments.clips for path in folder.rglob("*.mp4"))
    photos = open_biq2021(arguments.biq2021, arguments.cache, 500, config["seed"])
    moving = rng.choice(photos.indices("train"), plan["camera_moves"], replace=False)
    pristine = np.load(arguments.cache / "pristine.npy", mmap_mode="r")
    names = json.loads((arguments.cache / "pristine.json").read_text())
    still = rng.choice(len(pristine), min(len(pristine), plan["pristine_moves"]), replace=False)
    tasks = [(real_windows, (path, plan["per_clip"])) for path in files]
    tasks += [(camera_moves, (photos.pixels[i], str(photos.name[i]))) for i in moving]
    tasks += [(camera_moves, (pristine[i], names[i].rsplit(" ", 1)[0])) for i in still]
    seeds = np.random.SeedSequence(config["seed"]).spawn(len(tasks))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as pool:
        made = [pool.submit(_cut, cut, given, seed) for (cut, given), seed in zip(tasks, seeds, strict=True)]
        write_windows([window for one in made for window in one.result()], arguments.out, size)


def _cut(cut: Callable[..., Iterable[Window]], given: tuple[Any, ...], seed: np.random.SeedSequence) -> list[Window]:
    return list(cut(*given, np.random.default_rng(seed)))


def write_windows(windows: list[Window], out: Path, size: int) -> None:
    def whole(frame: Frames) -> npt.NDArray[np.uint8]:
        return np.rint(255 * resize_square(frame, size)).astype(np.uint8)

    np.save(out / "small.npy", np.stack([window.small for window in windows]))
    np.save(out / "whole.npy", np.stack([[whole(frame) for frame in window.whole] for window in windows]))
    np.save(out / "coded-small.npy", np.stack([[one.small for one in window.coded] for window in windows]))
    np.save(out / "coded-whole.npy", np.stack([[whole(one.whole) for one in window.coded] for window in windows]))
    np.savez(out / "windows.npz", rate=[one.rate for one in windows], source=[one.source for one in windows],
             coded_share=[[one.share for one in window.coded] for window in windows])  # fmt: skip


def split(source: npt.NDArray[np.str_], share: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Windows to train on and windows held out; no source is on both sides."""
    names = np.unique(source)
    held = np.random.default_rng(seed).permutation(names)[: max(1, round(share * len(names)))]
    apart = np.isin(source, held)
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def new_network(config: dict[str, Any]) -> SlowFast:
    return SlowFast(SlowFastConfig(**config["network"], classes=1))


def train_motion(config: dict[str, Any], out: Path) -> None:
    """Writes ``motion.safetensors`` (network and heads) and ``motion.jsonl``."""
    seed = config["seed"] + 1
    torch.manual_seed(seed)
    windows, source = open_windows(out), np.load(out / "windows.npz")["source"]
    chosen, held = split(source, config["held_out"], config["seed"])
    stage = MotionStage(new_network(config)).to(memory_format=torch.channels_last_3d)
    unseen = list(batches(windows, held, count=8, steps=15, seed=0))
    for number, plan in enumerate(config["motion"]):
        average = Average(stage, decay=0.99)
        optimizer = torch.optim.AdamW(stage.parameters(), lr=plan["rate"], weight_decay=0.02)
        started, sums = time.time(), Counter[str]()
        drawn = ahead(windows, chosen, count=plan["windows"], steps=plan["steps"], area=plan.get("area", ()),
                      seed=seed + number)  # fmt: skip
        for step, (clips, share, kind) in enumerate(drawn, 1):
            optimizer.param_groups[0]["lr"] = learning_rate(step - 1, plan["steps"], plan["rate"])
            stage.train()
            losses = stage.losses(clips, share, kind)
            loss = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(loss):
                raise SystemExit(f"the loss became {loss.item()} at step {step}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
            optimizer.step()
            average.update(stage)
            sums.update({name: float(value.detach()) for name, value in losses.items()})
            if step % plan["check_every"] == 0 or step == plan["steps"]:
                row = {"part": number, "step": step, "seconds": round(time.time() - started), **judged(average.model, unseen),
                       **{name: round(value / plan["check_every"], 4) for name, value in sums.items()}}  # fmt: skip
                sums.clear()
                with (out / "motion.jsonl").open("a") as log:
                    log.write(json.dumps(row) + "\n")
                keep(average.model.state_dict(), out / "motion.safetensors")
        stage.load_state_dict(average.model.state_dict())


@torch.no_grad()
def judged(stage: torch.nn.Module, unseen: list[tuple[torch.Tensor, ...]]) -> dict[str, float]:
    """Rank correlation with the share and how often the kind is right, on held-out windows."""
    stage.eval()
    guesses, shares, right = [], [], []
    for clips, share, kind in unseen:
        guess, logits = stage(clips)
        guesses.append(guess)
        shares.append(share)
        right.append(logits.argmax(1) == kind)
    return {"held_out_srcc": round(float(spearmanr(torch.cat(guesses), torch.cat(shares)).statistic), 4),
            "held_out_kind": round(float(torch.cat(right).float().mean()), 4)}  # fmt: skip


def trained_network(config: dict[str, Any], out: Path) -> SlowFast:
    stage = MotionStage(new_network(config))
    stage.load_state_dict(load_file(out / "motion.safetensors"))
    return stage.network.eval()


def read_windows(config: dict[str, Any], out: Path, model_name: str | None) -> None:
    """What a frozen part makes of every window, as it is and with faults: the image model in ``samples-frames.safetensors``, or
    without one the motion network in ``samples-motion.safetensors``."""
    count = len(np.load(out / "windows.npz")["rate"])
    with _readers(config, out, model_name) as pool:
        rows = list(pool.map(_window_motion if model_name is None else _window_frames, range(count), chunksize=8))
    _write(rows, out / f"samples-{_part(model_name)}.safetensors")


def _part(model_name: str | None) -> str:
    return "motion" if model_name is None else "frames"


def _write(rows: list[dict[str, Floats]], path: Path, **more: torch.Tensor) -> None:
    tensors = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]} | more
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


@dataclass(frozen=True)
class _Reading:
    """What a process needs to read windows and videos."""

    reader: Engine | None
    network: SlowFast
    windows: Windows
    whole: npt.NDArray[np.uint8]
    coded_whole: npt.NDArray[np.uint8]
    variants: int
    seed: int


_reading: _Reading


def _readers(config: dict[str, Any], out: Path, model_name: str | None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        os.cpu_count(), get_context("forkserver"), initializer=_start_reading, initargs=(config, out, model_name)
    )


def _start_reading(config: dict[str, Any], out: Path, model_name: str | None) -> None:
    global _reading
    torch.set_num_threads(1)  # the windows are shared out among processes
    reader = None if model_name is None else frame_reader(model_name, config["scorer"]["timesteps"])
    whole, coded_whole = (np.load(out / f"{name}.npy", mmap_mode="r") for name in ("whole", "coded-whole"))
    _reading = _Reading(reader, trained_network(config, out), open_windows(out), whole, coded_whole,
                        config["modulator"]["variants"], config["seed"] + 2)  # fmt: skip


def frame_reader(model_name: str, timesteps: int) -> Engine:
    """Reads frames as scoring does, by OpenVINO: half the time of torch's."""
    loaded = load_scorer(model_name, trainable=False)
    loaded = replace(loaded, config=loaded.config.model_copy(update={"video": VideoConfig(timesteps=timesteps)}))
    key = pass_key(loaded, frames=True)
    graphs = converted(lambda: pass_of(loaded.model, loaded.config, frames=True), key)
    return OpenVINOEngine(*graphs, loaded.model.blocks, loaded.config.preprocessing.size, key, precision="fp32")


@dataclass(frozen=True)
class _Variant:
    """A window as it is or with a fault: its clip, the share of its quality that is left, and its frames where they are others than
    those of the window itself."""

    clip: Frames
    share: float
    frames: npt.NDArray[np.uint8] | None


def _variants(number: int) -> list[_Variant]:
    """Of one window; its chances come of its number, so that any process may read it, and any part of it."""
    it, rng = _reading, np.random.default_rng((_reading.seed, number))
    rate, small, whole = float(it.windows.rate[number]), it.windows.small[number], it.whole[number]
    found = []
    for variant in range(it.variants):
        name = "none" if variant == 0 or rng.random() < 0.1 else str(rng.choice(list(FAULTS)))
        strength = float(rng.random()) ** 2  # mild ones more often
        clip, share = faulty(small, rate, name, strength, rng)
        altered = FAULTS[name](whole[1:], strength, rng)[0] if variant and name in SHOWS_IN_FRAMES else None
        found.append(_Variant(clip, share, altered))
    found.append(_Variant(still(small, rng), 1.0, None))
    there = frame_rate_share(rate, motion_of(small))
    for clip, frame, left in zip(
        it.windows.coded[number], it.coded_whole[number], it.windows.coded_share[number], strict=True
    ):
        found.append(_Variant(clip, float(left) * there, frame[None]))
    return found


@torch.inference_mode()
def _window_motion(number: int) -> dict[str, Floats]:
    variants = _variants(number)
    slow, fast = _reading.network(torch.stack([to_clip(one.clip) for one in variants]))
    return {"slow": slow.float().numpy(), "fast": fast.float().numpy(),
            "share": np.array([one.share for one in variants], np.float32)}  # fmt: skip


@torch.inference_mode()
def _window_frames(number: int) -> dict[str, Floats]:
    reader = _reading.reader
    assert reader is not None

    def read(frames: npt.NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        return frame_readings(reader, [frame.astype(np.float32) / 255 for frame in frames])

    plain = read(_reading.whole[number])
    seen = [plain if one.frames is None else read(one.frames) for one in _variants(number)]
    return {name: torch.stack([one[name] for one in seen]).float().numpy() for name in plain}


def drawn_sources(arguments: argparse.Namespace, config: dict[str, Any], name: str) -> list[Source]:
    """Of the windows' sources some for the ladders ``name``: clips and photos, those held out last."""
    plan, rng = config[name], np.random.default_rng(config[name]["seed"])
    source = np.load(arguments.out / "windows.npz")["source"]
    files = {path.name: path for folder in arguments.clips for path in sorted(folder.rglob("*.mp4"))}
    photos = open_biq2021(arguments.biq2021, arguments.cache, 500, config["seed"])
    pixels = {str(one): photos.pixels[i] for i, one in enumerate(photos.name)}
    pristine = np.load(arguments.cache / "pristine.npy", mmap_mode="r")
    squares = json.loads((arguments.cache / "pristine.json").read_text())
    pixels |= {one.rsplit(" ", 1)[0]: pristine[i] for i, one in enumerate(squares)}
    sources = []
    parts = split(source, config["held_out"], config["seed"])
    for part, share in zip(parts, (1.0, plan["held_out"]), strict=True):
        for known, count in ((files, plan["real"]), (pixels, plan["moves"])):
            names = [str(one) for one in np.unique(source[part]) if one in known]
            drawn = rng.choice(names, min(len(names), round(share * count)), replace=False)
            sources += [Source(str(one), known[str(one)]) for one in drawn]
    return sources


def read_ladders(config: dict[str, Any], out: Path, model_name: str | None, name: str, sources: list[Source]) -> None:
    """``<name>-frames.safetensors``, or without an image model ``<name>-motion.safetensors``: what it makes of these sources in
    ladders, and which of them are held out."""
    windows = np.load(out / "windows.npz")["source"]
    held = windows[split(windows, config["held_out"], config["seed"])[1]]
    what = Reading(*LADDERS[name], motion_size=config["scorer"]["motion_size"])
    seeds = np.random.SeedSequence(config["seed"] + 4).spawn(len(sources))
    with _readers(config, out, model_name) as pool:
        rows = list(pool.map(_read_ladders, sources, [what] * len(sources), seeds))
    _write(rows, out / f"{name}-{_part(model_name)}.safetensors",
           held_out=torch.from_numpy(np.isin([one.name for one in sources], held)))  # fmt: skip


@torch.inference_mode()
def _read_ladders(source: Source, what: Reading, seed: np.random.SeedSequence) -> dict[str, Floats]:
    rng, reader = np.random.default_rng(seed), _reading.reader
    return (
        read_motion(source, what, _reading.network, rng) if reader is None else read_frames(source, what, reader, rng)
    )


def _stored(out: Path, name: str) -> dict[str, torch.Tensor]:
    """What both frozen parts made of windows or ladders."""
    return load_file(out / f"{name}-motion.safetensors") | load_file(out / f"{name}-frames.safetensors")


def fit_modulators(config: dict[str, Any], out: Path, model_name: str) -> None:
    """``modulator-<form>.safetensors`` of both forms, and their figures in ``modulator.json``."""
    blocks, stored = load_scorer(model_name).model.blocks, _stored(out, "samples")
    samples = Samples(stored["raw"], [stored[f"query.{p}"] for p in range(len(blocks))], stored["slow"], stored["fast"],
                      stored["share"])  # fmt: skip
    chosen, held = split(np.load(out / "windows.npz")["source"], config["held_out"], config["seed"])
    whole = {name: _stored(out, name) for name in LADDERS}
    learned, unseen = (
        [_ladders(stored, len(blocks), held_out) for stored in whole.values()] for held_out in (False, True)
    )
    report = {}
    for form in FORMS:
        torch.manual_seed(config["seed"] + 3)
        modulator = TemporalQualityModulator(blocks, samples.slow.shape[2], samples.fast.shape[2], form=form)
        history = train_modulator(modulator, samples, chosen, held, learned, config["modulator"], config["seed"] + 3)
        steps = {
            name: {
                kind: [round(step, 2) for step in row]
                for kind, row in zip(what[0], steps_of(modulator, one).tolist(), strict=True)
            }
            for (name, what), one in zip(LADDERS.items(), unseen, strict=True)
        }
        spread = {part: round(float(intact_gamma(modulator, ladders[-1]).detach().std(correction=0)), 3)
                  for part, ladders in (("learned", learned), ("held_out", unseen))}  # fmt: skip
        report[form] = {"windows": history, "held_out_steps": steps, "intact_gamma_deviation": spread}
        keep(modulator.state_dict(), out / f"modulator-{form}.safetensors")
    (out / "modulator.json").write_text(
        json.dumps({"windows": len(chosen), "held_out": len(held), **report}, indent=2) + "\n"
    )


def _ladders(stored: dict[str, torch.Tensor], blocks: int, held_out: bool) -> Ladders:
    rows = np.flatnonzero(stored["held_out"].numpy() == held_out)
    return Ladders(stored["raw"], [stored[f"query.{p}"] for p in range(blocks)], stored["slow"], stored["fast"],
                   stored["share"]).of(rows)  # fmt: skip


def write_adapter(config: dict[str, Any], out: Path, embedded: Path, form: str) -> None:
    """The adapter of the embedded model, with its temporal part beside the image part."""
    adapter = embedded / "adapter"
    loaded = load_scorer(f"local-dir:{adapter}")
    sizes = MotionSizes(**config["network"])
    video = VideoConfig(tqm=form, motion=sizes, **config["scorer"])
    weights = {
        name: value for name, value in load_file(adapter / WEIGHTS).items() if not name.startswith(("tqm.", "motion."))
    }
    parts = {
        "motion": trained_network(config, out).state_dict(),
        "tqm": load_file(out / f"modulator-{form}.safetensors"),
    }
    for part, state in parts.items():
        weights |= {
            f"{part}.{name}": value.to(HALF) if value.is_floating_point() else value for name, value in state.items()
        }
    image_data = [entry for entry in loaded.config.training_data if not entry.startswith(TEMPORAL)]
    data = [*image_data, *(f"{TEMPORAL}{entry}" for entry in config["data"])]
    save_adapter(adapter, weights, loaded.config.model_copy(update={"video": video, "training_data": data}))
    write_manifest(embedded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--biq2021", type=Path, required=True, help="folder with Images/ and the two tables")
    parser.add_argument("--cache", type=Path, required=True, help="where training/mini/train.py wrote")
    parser.add_argument("--clips", type=Path, nargs="+", required=True, help="folders of real clips (MP4)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="mini", help="the image model to build on")
    parser.add_argument("--embedded", type=Path, help="src/genzqa/embedded/mini, for stage 6")
    parser.add_argument("--form", choices=FORMS, default="published", help="of the modulator that is written")
    parser.add_argument("--stage", type=int, choices=range(1, 7), nargs="*", default=[1, 2, 3, 4, 5])
    arguments = parser.parse_args()
    config = tomllib.loads((Path(__file__).parent / "video.toml").read_text())
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if 1 in arguments.stage:
        make_windows(arguments, config, load_scorer(arguments.model).config.preprocessing.size)
    if 2 in arguments.stage:
        train_motion(config, out)
    for stage, model_name in ((3, None), (4, arguments.model)):
        if stage in arguments.stage:
            read_windows(config, out, model_name)
            for name in LADDERS:
                read_ladders(config, out, model_name, name, drawn_sources(arguments, config, name))
    if 5 in arguments.stage:
        fit_modulators(config, out, arguments.model)
    if 6 in arguments.stage:
        write_adapter(config, out, arguments.embedded, arguments.form)


if __name__ == "__main__":
    main()
