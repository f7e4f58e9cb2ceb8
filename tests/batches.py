"""Small folders of photos, and what a batch has made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from genzqa.batch.local import LocalEngine
from genzqa.batch.run import Summary, identity_of, run_batch
from genzqa.limits import DEFAULT_LIMITS
from genzqa.scoring.scorer import Scorer


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (150, 140)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def album(folder: Path, count: int) -> Path:
    """Photos ``000.png`` and so on, no two alike."""
    for number in range(count):
        photo(folder / f"{number:03}.png", number)
    return folder


def engine_of(scorer: Scorer, name: str, **settings: Any) -> LocalEngine:
    return LocalEngine(scorer, name, DEFAULT_LIMITS, **{"batch_size": 4, "processes": 2, "offline": True} | settings)


def batch(engine: LocalEngine, scorer: Scorer, out: Path, *sources: Path | str, **options: Any) -> Summary:
    return run_batch(engine, [str(source) for source in sources], out, *identity_of(scorer), **options)


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """What a reader of ``out/*.parquet`` sees, by input; no two rows are about one."""
    tables = [pq.read_table(path) for path in sorted(out.glob("*.parquet"))]
    found = _plain(pa.concat_tables(tables)).to_pylist() if tables else []
    by_input = {row["input"]: row for row in found}
    assert len(by_input) == len(found)
    return by_input


def _plain(table: pa.Table) -> pa.Table:
    """With times in nanoseconds as numbers, which Python's own times cannot hold."""
    place = table.schema.get_field_index("modified")
    return table.set_column(place, "modified", table["modified"].cast(pa.int64()))


def scores(out: Path) -> dict[str, Any]:
    """Of every input the score, or the code of its error."""
    return {name: row["score"] if row["error"] is None else row["error"]["code"] for name, row in rows(out).items()}


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two outputs agree: the same inputs, the same errors, scores within 0.001."""
    return found.keys() == wanted.keys() and all(
        abs(found[name] - score) < 0.001 if isinstance(score, float) else found[name] == score
        for name, score in wanted.items()
    )
