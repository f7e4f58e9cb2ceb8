"""How close a batch comes to the scoring engine's own throughput, and how much memory a plan of many inputs takes.

python benchmarks/batch.py                       # 48 photos of 512 x 512, local engine
python benchmarks/batch.py --ray --photos 480    # and the Ray engine, on a cluster of this machine; its actors start anew
python benchmarks/batch.py --listing 1000000     # memory and time of a plan of a million inputs, none of them a file
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from genzqa.batch.item import Item
from genzqa.batch.known import Known
from genzqa.batch.local import LocalEngine, default_processes
from genzqa.batch.plan import Plan
from genzqa.batch.records import SCHEMA
from genzqa.batch.run import Engine, identity_of, run_batch
from genzqa.limits import DEFAULT_LIMITS
from genzqa.media.prepare import prepare_photo
from genzqa.scoring.scorer import Scorer, load

EXAMPLES = Path(__file__).parent.parent / "examples" / "photos"
SIDE, BATCH, PART = 512, 16, 50_000  # BATCH: what `genzqa batch` takes unless told


def make_photos(folder: Path, count: int) -> list[str]:
    """Views of the example photos, as JPEG files of 512 x 512 pixels."""
    draw = np.random.default_rng(0)
    sources = [Image.open(path).convert("RGB") for path in sorted(EXAMPLES.iterdir())]
    for number in range(count):
        source = sources[number % len(sources)]
        side = int(draw.integers(min(source.size) // 2, min(source.size) + 1))
        left, top = (int(draw.integers(0, length - side + 1)) for length in source.size)
        view = source.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
        view.save(folder / f"{number:06}.jpg", quality=90)
    return sorted(map(str, folder.iterdir()))


def engine_alone(scorer: Scorer, paths: list[str]) -> float:
    """Photos a second of the model, everything decoded and resized beforehand."""
    size = scorer.config.preprocessing.size
    prepared = [prepare_photo(path, size) for path in paths]
    started = time.perf_counter()
    for first in range(0, len(prepared), BATCH):
        scorer.score_prepared(prepared[first : first + BATCH])
    return len(paths) / (time.perf_counter() - started)


def batch_of(engine: Engine, scorer: Scorer, folder: Path, out: Path, count: int) -> float:
    """Photos a second of a whole run: listing, decoding, scoring, writing."""
    done = run_batch(engine, [str(folder)], out, *identity_of(scorer))
    assert done.scored == count
    return count / done.seconds


def measure_throughput(count: int, repeat: int, *, with_ray: bool) -> dict[str, object]:
    """All engines on the same photos, in turn, ``repeat`` times; medians and ratios."""
    scorer = load()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        folder.mkdir()
        paths = make_photos(folder, count)
        runs: dict[str, list[float]] = {"scoring_engine": [], "batch_local": []}
        engines: dict[str, Engine] = {}
        engine_alone(scorer, paths[:BATCH])  # what the first call costs is not throughput
        with LocalEngine(scorer, "mini", DEFAULT_LIMITS, batch_size=BATCH, processes=default_processes()) as local:
            list(local.score([Item(paths[0])]))  # its processes are up
            engines["batch_local"] = local
            if with_ray:
                from genzqa.batch.ray_engine import RayEngine

                engines["batch_ray"] = RayEngine("mini", DEFAULT_LIMITS, address=None, actors=None, cores=1, batch_size=BATCH,
                                                 processes=1)  # fmt: skip
                runs["batch_ray"] = []
            for number in range(repeat):
                runs["scoring_engine"].append(engine_alone(scorer, paths))
                for name, engine in engines.items():
                    runs[name].append(batch_of(engine, scorer, folder, Path(scratch) / f"{name}-{number}", count))
    rate = {name: statistics.median(values) for name, values in runs.items()}
    ratios = {"local_to_scoring_engine": rate["batch_local"] / rate["scoring_engine"]}
    if with_ray:
        ratios["ray_to_local"] = rate["batch_ray"] / rate["batch_local"]
    return {
        "photos": count,
        "side": SIDE,
        "photos_per_second": {name: round(value, 3) for name, value in rate.items()},
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "runs": {name: [round(value, 3) for value in values] for name, values in runs.items()},
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


def measure_listing(count: int) -> dict[str, object]:
    """A plan of inputs that are all known, but one in a thousand; of parts as they are read."""
    before = _peak()
    started = time.perf_counter()
    known = Known(_parts(count))
    loaded, peak_loaded = time.perf_counter() - started, _peak()
    started = time.perf_counter()
    plan = Plan(_items(count, changed=1000), known)
    to_do = sum(1 for _ in plan)
    return {
        "inputs": count,
        "to_do": to_do,
        "load_seconds": round(loaded, 2),
        "plan_seconds": round(time.perf_counter() - started, 2),
        "mib_before": round(before),
        "mib_known": round(peak_loaded - before),
        "mib_plan": round(_peak() - peak_loaded),
    }


def _items(count: int, *, changed: int = 0) -> Iterator[Item]:
    for number in range(count):
        yield Item(
            f"photos/{number // 1000:04}/{number:09}.jpg", 300_000 + bool(changed and number % changed == 0), number
        )


def _parts(count: int) -> Iterable[tuple[int, pa.Table, bool]]:
    columns = ("input", "error", "size", "modified", "sha256")
    items = _items(count)
    for part in range(-(-count // PART)):
        rows = [{"input": item.input, "size": item.size, "modified": item.modified}
                for _, item in zip(range(PART), items, strict=False)]  # fmt: skip
        yield part, pa.Table.from_pylist(rows, pa.schema([SCHEMA.field(name) for name in columns])), True


def _peak() -> float:
    """The most memory this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=48)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--listing", type=int, default=0, metavar="INPUTS", help="Only plan so many inputs.")
    options = parser.parse_args()
    measured = (measure_listing(options.listing) if options.listing else
                measure_throughput(options.photos, options.repeat, with_ray=options.ray))  # fmt: skip
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
