"""This package's scoring against the published procedure, plainly written, in one run on one machine. See docs/performance.md.

    python benchmarks/speed.py --size mini --out mini.json
    python benchmarks/speed.py --size sd21 --side 512 --timesteps 1 2 4 8 --batches 1 2 4 8 16 32 \
        --precision fp32 bf16 --backend torch openvino --out sd21.json

Every configuration runs in a process of its own (``contestants.py``), started by this one, which holds nothing large: on Linux
a child begins with the peak memory of the process that started it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import machine

CONTESTANTS = Path(__file__).parent / "contestants.py"
SIDES = {"sd21": 512, "mini": 448}
CEILINGS = {"fp32": "fp32", "bf16": "bf16", "int8": "bf16"}  # what each precision is held against
UNSTEADY = 1.1  # between the ceilings before and after
EXPORTING = 3600.0  # seconds an export may take
LOADING = 300.0  # seconds a configuration may take besides scoring
PACKAGES = ("genzqa", "torch", "diffusers", "transformers", "peft", "openvino", "onnxruntime")
HEADER = (f"{'side':>5}{'steps':>6}{'batch':>6}  {'contestant':<22}{'s':>9}{'photos/s':>10}{'MiB':>8}{'TFLOP':>8}{'TFLOP/s':>9}"
          f"{'ceiling':>9}{'x plain':>9}{'differs':>10}")  # fmt: skip


class UnfinishedError(Exception):
    """A configuration was stopped when its time was over, or failed."""


def main() -> None:
    options = read_options()
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)  # before anything is measured
    with tempfile.TemporaryDirectory(prefix="genzqa-benchmark-") as scratch:
        try:
            Run(options, Path(scratch)).all()
        except UnfinishedError as error:  # what everything else needs: the base, the clip, the ceiling
            raise SystemExit(f"nothing can be measured: {error}") from None


def read_options() -> argparse.Namespace:
    """The command line, checked as far as can be before anything runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", choices=SIDES, default="mini", help="the embedded model, or one as large as Stable Diffusion 2.1")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--side", type=int, nargs="+", help="of the network's input, pixels, multiples of 64; default: the model's own")
    add("--timesteps", type=int, nargs="+", choices=(1, 2, 4, 8), default=[2])
    add("--batches", type=int, nargs="+", default=[1, 4], help="photos in one call")
    add("--precision", nargs="+", choices=("fp32", "bf16", "int8"), default=["fp32"], help="int8 with openvino alone")
    add("--backend", nargs="+", choices=("torch", "openvino"), default=["torch"])
    add("--frames", type=int, nargs="+", default=[], help="also score a video by so many frames; mini alone has videos")
    add("--repeats", type=int, default=3, help="rounds of plain and all others in turn; medians count")
    add(
        "--budget",
        type=float,
        default=600,
        help="seconds a configuration may score in a round; what needs more is skipped",
    )
    add(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "genzqa-full-size",
        help="where the large base is kept",
    )
    add("--weights", choices=("fp32", "bf16"), default="fp32", help="how the large base is stored")
    add("--compiled", type=int, nargs="+", default=[], help="batches to measure compiled as well; --device cuda")
    add(
        "--one-process",
        action="store_true",
        help="measure everything in this process: models load once for all batches, peaks of a CPU's memory add up",
    )
    add("--out", type=Path, help="write everything here as JSON")
    options = parser.parse_args()
    options.side = options.side or [SIDES[options.size]]
    if wrong := [side for side in options.side if side < 64 or side % 64]:
        parser.error(f"--side {wrong[0]}: not a multiple of 64")
    if min([options.repeats, *options.batches, *options.frames]) < 1:
        parser.error("--repeats, --batches and --frames count from 1")
    if "int8" in options.precision and "openvino" not in options.backend:
        parser.error("--precision int8: only with --backend openvino")
    if "int8" in options.precision and options.size == "mini":
        parser.error("--precision int8: mini is too narrow for it")
    if options.compiled and options.device != "cuda":
        parser.error("--compiled: only on a GPU")
    if options.frames and options.size != "mini":
        parser.error("--frames: only mini scores videos")
    return options


def measure_here(name: str, timeout: float, **request: Any) -> dict[str, Any]:
    """As `measure`, in this process, for as long as it takes.

    Raises:
        UnfinishedError: It failed, having said why on stderr.
    """
    import contestants

    try:
        return contestants.MEASURES[name](**request)
    except Exception as error:
        traceback.print_exc()
        raise UnfinishedError(f"failed: {error}") from None
    finally:
        contestants.clear(request.get("device", "cpu"))


def measure(name: str, timeout: float, **request: Any) -> dict[str, Any]:
    """What a process of its own measured.

    Raises:
        UnfinishedError: Its time was over, or it failed, having said why on stderr.
    """
    command = [sys.executable, str(CONTESTANTS), json.dumps({"measure": name, **request})]
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise UnfinishedError(f"stopped: not done after {timeout:g} s, loading included") from None
    except subprocess.CalledProcessError as error:
        raise UnfinishedError(f"failed with status {error.returncode}") from None
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


@dataclass
class Contestant:
    """One configuration and what its rounds measured; ``skipped`` says why there is nothing."""

    name: str
    side: int
    timesteps: int
    batch: int = 1
    backend: str = "torch"
    precision: str = "fp32"
    compiled: bool = False
    rounds: list[dict[str, Any]] = field(default_factory=list)
    skipped: str = ""

    @property
    def per_photo(self) -> float:
        """Seconds, median of all runs of all rounds."""
        return statistics.median(taken for one in self.rounds for taken in one["seconds"]) / self.batch

    @property
    def label(self) -> str:
        return (
            self.name
            if self.name == "plain"
            else f"{self.name} {self.backend} {self.precision}{' compiled' * self.compiled}"
        )


class Run:
    """All measurements of one command, in turn."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options, self.scratch = options, scratch
        self.measure = measure_here if options.one_process else measure
        self.machine = machine(*PACKAGES)
        self.ceilings: dict[str, list[float]] = {
            precision: [] for precision in sorted({"fp32", *(CEILINGS[one] for one in options.precision)})
        }
        self.photos: list[dict[str, Any]] = []
        self.videos: list[dict[str, Any]] = []

    def all(self) -> None:
        self.adapter = self._adapter()
        self._ceilings()
        print(HEADER, flush=True)
        for side in self.options.side:
            for timesteps in self.options.timesteps:
                self._group(side, timesteps)
        if self.options.frames:
            self._videos()
        self._ceilings()
        self._write()
        for precision, rates in self.ceilings.items():
            if max(rates) > UNSTEADY * min(rates):
                print(
                    f"the {precision} ceiling moved: something else was running; shares in the file are of the higher one"
                )

    def _adapter(self) -> Path:
        if self.options.size == "sd21":
            folder = self.options.folder / self.options.weights
            return Path(self.measure("build", 3600, folder=str(folder), weights=self.options.weights)["adapter"])
        package = importlib.util.find_spec("genzqa")  # which imports nothing
        assert package is not None
        assert package.origin is not None
        return Path(package.origin).parent / "embedded" / "mini" / "adapter"

    def _variant(self, side: int, timesteps: int) -> str:
        """The adapter with another size of input and another number of timesteps."""
        folder = self.scratch / f"{side}-{timesteps}"
        if not folder.exists():
            shutil.copytree(self.adapter, folder)
            config = json.loads((folder / "config.json").read_text())
            config["timesteps"], config["preprocessing"]["size"] = timesteps, side
            (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    def _in_integers(self, adapter: str) -> str:
        """That adapter's model, exported; once."""
        folder = Path(f"{adapter}-int8")
        if not folder.exists():
            found = self.measure("export", EXPORTING, adapter=adapter, folder=str(folder))
            print(f"exported in int8: off by {found['score']:g} points on {found['images']} photos", flush=True)
        return str(folder)

    def _ceilings(self) -> None:
        """At the start and at the end, so that a machine that was busy at one of them shows."""
        for precision, rates in self.ceilings.items():
            measured = self.measure("ceiling", LOADING, device=self.options.device, precision=precision)
            rates.append(measured.pop("flop_per_second"))
            self.machine |= measured
            print(f"matrix products in {precision}: {rates[-1] / 1e12:.3g} TFLOP/s", flush=True)

    def _group(self, side: int, timesteps: int) -> None:
        """Plain and all configurations of the package, of one size of input and one number of timesteps."""
        plain = Contestant("plain", side, timesteps)
        others = [Contestant("genzqa", side, timesteps, batch, backend, precision) for backend in self.options.backend
                  for precision in self.options.precision for batch in sorted(self.options.batches)
                  if precision != "int8" or backend == "openvino"]  # fmt: skip
        others += [Contestant("genzqa", side, timesteps, batch, "torch", precision, compiled=True)
                   for precision in self.options.precision if precision != "int8" for batch in self.options.compiled]  # fmt: skip
        for number in range(self.options.repeats):
            for one in (plain, *others):
                if not one.skipped:
                    self._round(one, number, plain, others)
        for one in (plain, *others):
            self.photos.append(row := self._row(one, plain))
            print(f"{one.label}, {side} px, {timesteps} timesteps, batch {one.batch}: {one.skipped}" if one.skipped else
                  line(row), flush=True)  # fmt: skip
        self._write()

    def _round(self, one: Contestant, number: int, plain: Contestant, others: list[Contestant]) -> None:
        if (needed := self._estimate(one, plain, others)) > self.options.budget:
            one.skipped = f"skipped: it would take {needed:.0f} s, more than the budget of {self.options.budget:g} s"
            return
        try:
            adapter = self._variant(one.side, one.timesteps)
            adapter = self._in_integers(adapter) if one.precision == "int8" else adapter
        except UnfinishedError as error:
            one.skipped = f"cannot be exported: {error}"
            return
        request: dict[str, Any] = {"adapter": adapter, "device": self.options.device, "first": number}
        if one is not plain:
            request |= {
                "backend": one.backend,
                "precision": one.precision,
                "batch": one.batch,
                "compiled": one.compiled,
            }
        try:
            one.rounds.append(
                self.measure("plain" if one is plain else "engine", self.options.budget + LOADING, **request)
            )
        except UnfinishedError as error:
            one.skipped = str(error)

    def _estimate(self, one: Contestant, plain: Contestant, others: list[Contestant]) -> float:
        """Seconds that a warm-up and a run should take, from smaller batches, or from the machine's ceiling; 0 if unknown."""
        alike = [other for other in others if (other.backend, other.precision) == (one.backend, one.precision)]
        if measured := [other for other in (one, *alike) if other.rounds and other.batch <= one.batch]:
            per_photo = max(measured, key=lambda other: other.batch).per_photo
        elif plain.rounds:
            per_photo = plain.rounds[0]["flop"] / max(self.ceilings[CEILINGS[one.precision]])
        else:
            return 0.0
        return 2 * one.batch * per_photo

    def _row(self, one: Contestant, plain: Contestant) -> dict[str, Any]:
        row: dict[str, Any] = {
            "contestant": one.name, "backend": one.backend, "precision": one.precision, "side": one.side,
            "timesteps": one.timesteps, "batch": one.batch, "compiled": one.compiled,
        }  # fmt: skip
        if one.skipped:
            return row | {"skipped": one.skipped}
        row |= {
            "seconds": one.per_photo * one.batch,
            "photos_per_second": 1 / one.per_photo,
            "peak_mib": max(each["peak_mib"] for each in one.rounds),
            "load_seconds": statistics.median(each["load_seconds"] for each in one.rounds),
            "runs": [each["seconds"] for each in one.rounds],
        }
        if plain.skipped:
            return row
        flop = plain.rounds[0]["flop"]
        rate = flop / one.per_photo
        row |= {
            "tflop_per_photo": flop / 1e12,
            "tflops": rate / 1e12,
            "of_ceiling": rate / max(self.ceilings[CEILINGS[one.precision]]),
        }
        if one is plain:
            return row | {"tflop_of_prompts": plain.rounds[0]["flop_prompts"] / 1e12}
        return row | {
            "times_plain": plain.per_photo / one.per_photo,
            "largest_difference": max(
                abs(ours["raw"][0] - theirs["raw"][0]) for ours, theirs in zip(one.rounds, plain.rounds, strict=True)
            ),
        }

    def _videos(self) -> None:
        """A clip by more and more frames."""
        path = str(self.scratch / "clip.mp4")
        self.measure("clip", LOADING, path=path)
        adapter = self._variant(self.options.side[0], self.options.timesteps[0])
        for backend, precision, frames in self._video_configurations():
            request = {"adapter": adapter, "device": self.options.device, "backend": backend, "precision": precision}
            try:
                one = self.measure("video", self.options.budget + LOADING, path=path, frames=frames, **request)
            except UnfinishedError as error:
                print(f"a clip of 8 s by {frames} frames, {backend} {precision}: {error}", flush=True)
                continue
            seconds = statistics.median(one.pop("seconds"))
            self.videos.append(request | {"frames": frames, "seconds": seconds, "adapter": self.options.size} | one)
            print(
                f"a clip of 8 s by {frames} frames, {backend} {precision}: {seconds:.2f} s, {one['peak_mib']:.0f} MiB",
                flush=True,
            )

    def _video_configurations(self) -> Iterator[tuple[str, str, int]]:
        for backend in self.options.backend:
            for precision in self.options.precision:
                for frames in self.options.frames:
                    yield backend, precision, frames

    def _write(self) -> None:
        """After every group, so that a run that is stopped leaves what it has."""
        for row in self.photos:
            if "tflops" in row:  # of the ceilings known by now
                row["of_ceiling"] = row["tflops"] * 1e12 / max(self.ceilings[CEILINGS[row["precision"]]])
        if self.options.out:
            asked = {name: value for name, value in vars(self.options).items() if name not in ("out", "folder")}
            record = {"machine": self.machine, "asked": asked, "photos": self.photos, "videos": self.videos,
                      "ceiling_flop_per_second": self.ceilings, "written": time.strftime("%Y-%m-%d")}  # fmt: skip
            self.options.out.write_text(json.dumps(record, indent=1) + "\n")


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    compiled = " compiled" * row["compiled"]
    name = "plain" if row["contestant"] == "plain" else f"{row['backend']} {row['precision']}{compiled}"
    columns = [(row["side"], "5"), (row["timesteps"], "6"), (row["batch"], "6"), (f"  {name}", "<24"), (row["seconds"], "9.3f"),
               (row["photos_per_second"], "10.3f"), (row["peak_mib"], "8.0f")]  # fmt: skip
    if "tflops" in row:
        columns += [(row["tflop_per_photo"], "8.3f"), (row["tflops"], "9.3g"), (row["of_ceiling"], "9.1%")]
    if "times_plain" in row:
        columns += [(row["times_plain"], "9.2f"), (row["largest_difference"], "10.1e")]
    return "".join(format(value, form) for value, form in columns)


if __name__ == "__main__":
    main()
