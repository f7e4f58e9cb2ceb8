"""What a model said of every item of a database, kept as Parquet: all figures are made from these rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genzqa.errors import DataError
from genzqa.files import write_atomically

_KEY = b"genzqa"
# Which model it is. Backend, precision and version say how it was run, and may differ among the databases of a folder.
_IDENTITY = ("model", "weights_sha256", "base_sha256", "preprocessing", "timesteps", "seed")


@dataclass(frozen=True)
class Prediction:
    """One row.

    Attributes:
        path: Relative to the database's root.
        group: Reference image or source video, or empty.
        mos: As the database gives it.
        quality: The same on 0..100, higher is better.
        score, low, high, raw: What the model said, or None where the item could not be scored.
        error: Why not, as ``code: reason``, or empty.
    """

    path: str
    group: str
    mos: float
    quality: float
    score: float | None
    low: float | None
    high: float | None
    raw: float | None
    error: str = ""


@dataclass(frozen=True)
class Predictions:
    """The rows of one database's split, with what they depend on.

    Attributes:
        database: Its name.
        split: Which part of it.
        kind: ``"image"`` or ``"video"``.
        domains: Of the database.
        root: Folder that the paths are relative to, when and where they were scored.
        range_known: Whether 0 and 100 of ``quality`` are the ends of the database's scale, and not of its scores.
        model: The provenance of the scores, as in the JSON records.
        rows: In the order of the label file.
    """

    database: str
    split: str
    kind: str
    domains: tuple[str, ...]
    root: str
    range_known: bool
    model: dict[str, Any]
    rows: tuple[Prediction, ...]

    @property
    def scored(self) -> tuple[Prediction, ...]:
        """The rows that have a score."""
        return tuple(row for row in self.rows if row.score is not None)

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """A numeric column of the scored rows."""
        return np.array([getattr(row, name) for row in self.scored], np.float64)

    def groups(self) -> npt.NDArray[np.str_]:
        """The group of each scored row; a row without one is a group of its own."""
        return np.array([row.group or row.path for row in self.scored])


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write one Parquet file, atomically.

    Raises:
        OutputError: If it cannot be written.
    """
    arrow, parquet = _pyarrow(path)
    facts = {
        name: getattr(predictions, name)
        for name in ("database", "split", "kind", "domains", "root", "range_known", "model")
    }
    table = arrow.Table.from_pylist([asdict(row) for row in predictions.rows], schema=_schema(arrow))
    sink = arrow.BufferOutputStream()
    parquet.write_table(table.replace_schema_metadata({_KEY: json.dumps(facts)}), sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote.

    Raises:
        DataError: If the file is missing or is none of ours.
    """
    arrow, parquet = _pyarrow(path)
    try:
        table = parquet.read_table(path, schema=_schema(arrow))
        facts = json.loads((parquet.read_schema(path).metadata or {})[_KEY])
    except FileNotFoundError as error:
        raise DataError("no such file", subject=str(path)) from error
    except (OSError, arrow.ArrowException, KeyError, ValueError) as error:
        raise DataError("holds no predictions of genzqa evaluate", subject=str(path)) from error
    rows = tuple(Prediction(**row) for row in table.to_pylist())
    return Predictions(**{**facts, "domains": tuple(facts["domains"])}, rows=rows)


def read_folder(folder: Path) -> list[Predictions]:
    """All predictions in a results folder, by file name; they are all of one model.

    Raises:
        DataError: If there are none, or if two of them are of different models.
    """
    found = _read_all(folder)
    if not found:
        raise DataError("holds no predictions", subject=str(folder), hint="make them with genzqa evaluate")
    (first, one), *others = found.items()
    for path, other in others:
        if differs := _differences(one.model, other.model):
            raise DataError(f"{first.name} and {path.name} are of different models: {differs}", subject=str(folder),
                            hint="keep each model's predictions in a folder of its own")  # fmt: skip
    return list(found.values())


def refuse_another_model(folder: Path, model: Mapping[str, Any]) -> None:
    """See that predictions of a model may be added to a folder; one without predictions takes any.

    Args:
        folder: The results folder.
        model: The provenance of the scores to be added.

    Raises:
        DataError: If the folder holds predictions of another model, or a Parquet file that is none of ours.
    """
    for path, kept in _read_all(folder).items():
        if differs := _differences(kept.model, model):
            raise DataError(f"holds predictions of another model: {differs}", subject=str(path),
                            hint="give each model a folder of its own")  # fmt: skip


def _read_all(folder: Path) -> dict[Path, Predictions]:
    return {path: read_predictions(path) for path in sorted(folder.glob("*.parquet"))}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In what two models differ, for a message; empty if they are the same."""
    return ", ".join(f"{name} {_short(one.get(name))} and {_short(other.get(name))}" for name in _IDENTITY
                     if one.get(name) != other.get(name))  # fmt: skip


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text  # a SHA-256


def same_items(one: Predictions, other: Predictions) -> tuple[Sequence[Prediction], Sequence[Prediction]]:
    """The rows that both have scored, in one order."""
    theirs = {row.path: row for row in other.scored}
    both = [(row, theirs[row.path]) for row in one.scored if row.path in theirs]
    return [row for row, _ in both], [row for _, row in both]


def _schema(arrow: Any) -> Any:
    text, number = arrow.string(), arrow.float64()
    kinds: Iterable[tuple[str, Any]] = {"path": text, "group": text, "mos": number, "quality": number, "score": number,
                                        "low": number, "high": number, "raw": number, "error": text}.items()  # fmt: skip
    return arrow.schema(list(kinds))


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("Parquet files need pyarrow", subject=str(path), hint="pip install 'genzqa[train]'") from error
    return pyarrow, pyarrow.parquet
