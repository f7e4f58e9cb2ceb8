"""Label files as databases are published with: CSV, text, spreadsheets and MATLAB files, as plain columns.

Every function raises `DataError` that names the file, and the row where one is to blame.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genzqa.errors import DataError

Row = Mapping[str, str]


def find(root: Path, *candidates: str) -> Path:
    """The first of these files or folders that is there; databases are unpacked in more than one way."""
    for name in candidates:
        if (root / name).exists():
            return root / name
    raise DataError("not there", subject=str(root / candidates[0]))


def read_csv(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> Iterator[Row]:
    """Rows of a CSV file with a header that has at least these columns; names and values without outer blanks."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            missing = [name for name in columns if name not in header]
            if missing:
                raise DataError(
                    f"no column {', '.join(missing)}; there are {', '.join(header) or 'none'}", subject=str(path)
                )
            reader.fieldnames = header
            for row in reader:
                if any(row.get(name) is None for name in columns):
                    raise DataError(f"line {reader.line_num} has too few columns", subject=str(path))
                yield {name: value.strip() for name, value in row.items() if isinstance(value, str)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", subject=str(path)) from error


def read_lines(path: Path, columns: int, *, delimiter: str | None = None) -> Iterator[list[str]]:
    """Lines of a text file without a header, cut at blanks or at ``delimiter``; empty ones are left out."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                cells = [cell.strip() for cell in line.strip().split(delimiter)]
                if cells in ([], [""]):
                    continue
                if len(cells) < columns:
                    raise DataError(f"line {number} has {len(cells)} columns, not {columns}", subject=str(path))
                yield cells
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", subject=str(path)) from error


def read_sheet(
    path: Path, columns: Sequence[str], *, sheet: str | None = None, header: int = 1
) -> Iterator[dict[str, Any]]:
    """Rows of an Excel sheet whose row ``header`` (1 is the first) names at least these columns."""
    try:
        import openpyxl
    except ImportError as error:
        raise DataError("spreadsheets need openpyxl", subject=str(path), hint="pip install 'genzqa[train]'") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl raises whatever zipfile and its XML parser do
        raise DataError(f"is no readable spreadsheet: {error}", subject=str(path)) from error
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise DataError(f"no sheet {sheet}; there are {', '.join(book.sheetnames)}", subject=str(path))
        rows = (book[sheet] if sheet else book.worksheets[0]).iter_rows(min_row=header, values_only=True)
        names = [str(cell).strip() if cell is not None else "" for cell in next(rows, ())]
        missing = [name for name in columns if name not in names]
        if missing:
            raise DataError(
                f"no column {', '.join(missing)}; there are {', '.join(filter(None, names))}", subject=str(path)
            )
        for row in rows:
            if any(cell is not None for cell in row):
                yield dict(zip(names, row, strict=False))
    finally:
        book.close()


def read_mat(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Variables of a MATLAB file up to version 7.2, squeezed; version 7.3 through h5py, transposed as MATLAB shows them."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        stored: dict[str, Any] = loadmat(path, squeeze_me=True, variable_names=list(names))
    except NotImplementedError:
        stored = _read_hdf5(path, names)
    except (OSError, ValueError, TypeError, MatReadError, EOFError) as error:
        raise DataError(f"is no readable MATLAB file: {error}", subject=str(path)) from error
    missing = [name for name in names if name not in stored]
    if missing:
        raise DataError(f"no variable {', '.join(missing)}", subject=str(path))
    return {name: stored[name] for name in names}


def _read_hdf5(path: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            "a MATLAB file of version 7.3 needs h5py", subject=str(path), hint="pip install h5py"
        ) from error
    with h5py.File(path) as file:
        return {name: np.squeeze(np.asarray(file[name]).T) for name in names if name in file}


def number(value: object, path: Path, what: str) -> float:
    """A finite number out of a cell; ``what`` names the cell in the error."""
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{what} is {str(value)!r}, not a number", subject=str(path))
    return found


def text(value: object) -> str:
    """A string out of a MATLAB cell, which may be wrapped in arrays of one element."""
    while isinstance(value, np.ndarray):
        if value.size != 1:
            raise DataError(f"a name was expected, not an array of {value.size}")
        value = value.reshape(-1)[0]
    return str(value).strip()
