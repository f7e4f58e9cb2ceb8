"""Seconds and memory that scoring a video takes. See README.md beside this file.

    python benchmarks/video.py --out video.json

Every file is scored by a process of its own, which is started by a parent that holds nothing large: on Linux a child begins
with the peak of the process that started it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine, peak_mib

SHORT_SECONDS, LONG_SECONDS = 8, 600
SEQUENCE_SECONDS = 20  # encoded once and repeated
GROWTH_MINUTES = (1, 2, 4, 8)
TARGETS = {  # seconds, MiB
    "8 s, 960x540": (6.0, None),
    "10 min, 1920x1080": (20.0, 2048),
}


def main() -> None:
    """Make the inputs, score them, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--model", default="mini", help="as genzqa.load takes it")
    parser.add_argument("--repeat", type=int, default=3, help="runs of the two clips with a target; the median counts")
    parser.add_argument("--folder", type=Path, help="keep the inputs here, and use those that are already there")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)  # what the processes of its own do
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)  # before anything is measured
    if options.make:
        make_inputs(options.make)
    elif options.measure:
        print(json.dumps(measure(options.measure, options.model)))
    elif options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        run(options.folder, options)
    else:
        with tempfile.TemporaryDirectory(prefix="genzqa-benchmark-") as folder:
            run(Path(folder), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    """All measurements, one after another."""
    surroundings = machine("torch", "av", "genzqa")
    own_process("--make", folder)
    plan = [("8 s, 960x540", "short.mp4", options.repeat), ("10 min, 1920x1080", "long.mp4", options.repeat)]
    plan += [(f"{minutes} min, 1920x1080", f"minutes-{minutes}.mp4", 1) for minutes in GROWTH_MINUTES]
    measured = []
    for name, file, times in plan:
        runs = [json.loads(own_process("--measure", folder / file, "--model", options.model)) for _ in range(times)]
        measured.append(summary(name, folder / file, runs))
        print_row(measured[-1], header=len(measured) == 1)
    peaks = [each["peak_mib"] for each in measured[2:]]
    growth = {"minutes": list(GROWTH_MINUTES), "peak_mib": peaks, "most_over_least": round(max(peaks) / min(peaks), 3)}
    print(f"\npeak memory over {GROWTH_MINUTES} minutes of 1080p: most over least {growth['most_over_least']:.3f}")
    if options.out:
        record = {"machine": surroundings, "model": options.model, "videos": measured, "growth": growth}
        options.out.write_text(json.dumps(record, indent=2) + "\n")


def own_process(*arguments: object) -> str:
    """What this script prints when it runs with these arguments in a new process."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def make_inputs(folder: Path) -> None:
    """Encode what is not there yet."""
    from clips import encode, repeat

    if not (short := folder / "short.mp4").exists():
        encode(short, SHORT_SECONDS, 960, 540, preset="medium")
    if not (sequence := folder / "sequence.mp4").exists():
        encode(sequence, SEQUENCE_SECONDS, 1920, 1080)
    lengths = {"long.mp4": LONG_SECONDS} | {f"minutes-{minutes}.mp4": 60 * minutes for minutes in GROWTH_MINUTES}
    for name, seconds in lengths.items():
        if not (folder / name).exists():
            repeat(sequence, folder / name, seconds // SEQUENCE_SECONDS)


def measure(path: Path, model: str) -> dict[str, Any]:
    """Load, then score one video; the model is not warmed up, since a user's is not either."""
    started = time.perf_counter()
    import genzqa

    scorer = genzqa.load(model, offline=True)
    loaded, busy, memory = time.perf_counter(), time.process_time(), peak_mib()
    result = scorer.score(path)
    scored = time.perf_counter()
    assert isinstance(result, genzqa.VideoResult)
    return {
        "load_seconds": loaded - started,
        "score_seconds": scored - loaded,
        "score_cpu_seconds": time.process_time() - busy,
        "loaded_peak_mib": memory,
        "peak_mib": peak_mib(),
        "score": result.score,
        "frames_sampled": len(result.frames),
        "frames_decoded": result.counts.decoded,
        "frames_declared": result.counts.declared,
        "notes": [note.code for note in result.notes],
    }


def summary(name: str, path: Path, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the times, the most of the memory, and what all runs share."""
    seconds, memory = TARGETS.get(name, (None, None))
    score_seconds = statistics.median(one["score_seconds"] for one in runs)
    peak = max(one["peak_mib"] for one in runs)
    return runs[0] | {
        "name": name,
        "file_bytes": path.stat().st_size,
        "runs": [round(one["score_seconds"], 3) for one in runs],
        "score_seconds": round(score_seconds, 3),
        "score_cpu_seconds": round(statistics.median(one["score_cpu_seconds"] for one in runs), 3),
        "load_seconds": round(statistics.median(one["load_seconds"] for one in runs), 3),
        "loaded_peak_mib": round(max(one["loaded_peak_mib"] for one in runs), 1),
        "peak_mib": round(peak, 1),
        "target_seconds": seconds,
        "target_mib": memory,
        "reached": (seconds is None or score_seconds < seconds) and (memory is None or peak < memory),
    }


def print_row(one: dict[str, Any], *, header: bool) -> None:
    """One line of the table."""
    if header:
        print(
            f"{'video':<20}{'load s':>8}{'score s':>9}{'cpu s':>8}{'peak MiB':>10}{'sampled':>9}{'decoded':>9}{'of':>7}  target"
        )
    wanted = [f"{one['target_seconds']:g} s"] if one["target_seconds"] else []
    wanted += [f"{one['target_mib']} MiB"] if one["target_mib"] else []
    verdict = f"{', '.join(wanted)}: {'reached' if one['reached'] else 'MISSED'}" if wanted else ""
    columns = ((one["load_seconds"], "8.2f"), (one["score_seconds"], "9.2f"), (one["score_cpu_seconds"], "8.2f"),
               (one["peak_mib"], "10.0f"), (one["frames_sampled"], "9"), (one["frames_decoded"], "9"),
               (one["frames_declared"], "7"))  # fmt: skip
    print(f"{one['name']:<20}", *(format(value, form) for value, form in columns), f"  {verdict}", sep="", flush=True)


if __name__ == "__main__":
    main()
