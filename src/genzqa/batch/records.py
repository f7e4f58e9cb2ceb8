"""One row per input: the records of ``genzqa/1`` with exact Arrow types, and what identifies the input."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from genzqa.batch.item import Item
from genzqa.text import encodable

_TEXT, _REAL, _INT = pa.string(), pa.float64(), pa.int64()
_FRAME = pa.struct([("time", _REAL), ("score", _REAL), ("raw", _REAL)])

SCHEMA = pa.schema(
    [
        pa.field("input", _TEXT, nullable=False),
        pa.field("kind", _TEXT, nullable=False),
        pa.field("status", _TEXT, nullable=False),
        ("score", _REAL),
        ("raw", _REAL),
        ("interval_low", _REAL),
        ("interval_high", _REAL),
        ("grade", _TEXT),
        ("percentile", _REAL),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("notes", pa.list_(pa.struct([("code", _TEXT), ("text", _TEXT)]))),
        ("seconds", _REAL),
        ("error", pa.struct([("code", _TEXT), ("file", _TEXT), ("reason", _TEXT), ("hint", _TEXT)])),
        ("duration", _REAL),
        ("frame_rate", _REAL),
        ("frames", pa.list_(_FRAME)),
        ("worst", _FRAME),
        ("gamma", pa.list_(_REAL)),
        ("counts", pa.struct([("declared", _INT), ("decoded", _INT), ("corrupt", _INT)])),
        (
            "stream",
            pa.struct(
                [
                    ("container", _TEXT),
                    ("codec", _TEXT),
                    ("pixel_format", _TEXT),
                    ("bit_depth", pa.int32()),
                    ("coded_width", pa.int32()),
                    ("coded_height", pa.int32()),
                    ("rotation", pa.int32()),
                    ("sample_aspect_ratio", _REAL),
                    ("transfer", _TEXT),
                    ("matrix", _TEXT),
                    ("full_range", pa.bool_()),
                    ("interlaced", pa.bool_()),
                ]
            ),
        ),
        pa.field("schema", _TEXT, nullable=False),
        pa.field("model", _TEXT, nullable=False),
        pa.field("base", _TEXT, nullable=False),
        pa.field("weights_sha256", _TEXT, nullable=False),
        pa.field("base_sha256", _TEXT, nullable=False),
        pa.field("preprocessing", _TEXT, nullable=False),
        pa.field("timesteps", pa.list_(pa.int32()), nullable=False),
        pa.field("seed", _INT, nullable=False),
        ("backend", _TEXT),
        ("precision", _TEXT),
        pa.field("version", _TEXT, nullable=False),
        ("motion", _TEXT),
        ("motion_sha256", _TEXT),
        ("size", _INT),
        ("modified", pa.timestamp("ns", "UTC")),
        ("sha256", _TEXT),
    ]
)
"""The fields of a record in its own words; ``interval`` is two columns, as in CSV. ``size`` (bytes), ``modified`` and
``sha256`` (of the content, with ``--hash`` alone) are those of the file when it was listed, null where unknown."""

IDENTITY = ("size", "modified", "sha256")
_VIDEO_ONLY = ("duration", "frame_rate", "frames", "worst", "gamma", "counts", "stream", "motion", "motion_sha256")
_SCORED_ONLY = ("score", "raw", "grade", "percentile", "width", "height", "notes", "seconds")


def row_of(item: Item, record: dict[str, Any]) -> dict[str, Any]:
    """The row of an input, from its JSON record."""
    row: dict[str, Any] = encodable(dict(record))
    low, high = row.pop("interval", (None, None))
    identity = {"size": item.size, "modified": item.modified, "sha256": item.sha256}
    return {**row, "interval_low": low, "interval_high": high, **identity}


def record_of(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON record that a row was made from, as ``genzqa/1`` has it."""
    record = {name: value for name, value in row.items() if name not in (*IDENTITY, "interval_low", "interval_high")}
    for name in _VIDEO_ONLY if record["kind"] == "image" or record["status"] == "error" else ():
        record.pop(name, None)
    if record["status"] == "error":
        for name in _SCORED_ONLY:
            record.pop(name, None)
        return record
    record.pop("error", None)
    return {**record, "interval": [row["interval_low"], row["interval_high"]]}


def completed(batch: pa.RecordBatch) -> pa.Table:
    """Rows of `SCHEMA` from stored ones; what an earlier release did not record is null."""
    columns = [batch.column(field.name) if field.name in batch.schema.names else pa.nulls(len(batch), field.type)
               for field in SCHEMA]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`."""
    return pa.Table.from_pylist(rows, schema=SCHEMA)
