"""LIVE, release 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Known, Sample
from genzqa.databases.labels import find, number, read_mat, text
from genzqa.errors import DataError

FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}  # in the order of the label files


def read(root: Path) -> Iterator[Sample]:
    """``dmos_realigned.mat`` (``dmos_new``, ``dmos_std``) or else ``dmos.mat`` (``dmos``), and ``refnames_all.mat``.

    Each has one entry for each image of the five folders. Those that ``orgs`` marks are copies of the references, with a DMOS
    of 0 by definition, and are left out. The realigned DMOS run from -3 to 112, a little beyond their scale of 0..100.
    """
    table = find(root, "dmos_realigned.mat", "dmos.mat")
    references = find(root, "refnames_all.mat")
    realigned = table.name == "dmos_realigned.mat"
    names = ("dmos_new", "orgs", "dmos_std") if realigned else ("dmos", "orgs")
    columns = [*read_mat(table, names).values(), read_mat(references, ("refnames_all",))["refnames_all"]]
    files = [root / folder / f"img{n}.bmp" for folder, count in FOLDERS.items() for n in range(1, count + 1)]
    for column, name in zip(columns, (*names, "refnames_all"), strict=True):
        if column.shape != (len(files),):
            subject = references if name == "refnames_all" else table
            raise DataError(f"{name} has {column.size} entries, not {len(files)}", subject=str(subject))
    for path, dmos, original, *stds, reference in zip(files, *columns, strict=True):
        if original:
            continue
        what = f"{path.parent.name}/{path.name}"
        yield Sample(
            path=path,
            mos=number(dmos, table, f"DMOS of {what}"),
            std=number(stds[0], table, f"standard deviation of {what}") if realigned else None,
            group=text(reference),
        )


DATABASE = Database(
    name="live",
    title="LIVE Image Quality Assessment Database, release 2",
    kind="image",
    mos_range=(0, 100),
    items=779,
    domains=("synthetic",),
    licence="free to use, copy and change with its copyright notice and citation",
    citation="H. R. Sheikh, M. F. Sabir, A. C. Bovik, A Statistical Evaluation of Recent Full Reference Image Quality Assessment "
    "Algorithms, IEEE Transactions on Image Processing 15(11), 2006",
    home="https://live.ece.utexas.edu/research/quality/subjective.htm",
    layout="dmos_realigned.mat or dmos.mat, refnames_all.mat and jp2k/, jpeg/, wn/, gblur/, fastfading/",
    read=read,
    higher_is_better=False,
    known=Known(scores=(-3, 112)),
)
