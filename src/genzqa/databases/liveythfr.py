"""LIVE-YT-HFR."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_lines
from genzqa.errors import DataError

ROWS = ("File Names", "MOS", "std")


def read(root: Path) -> Iterator[Sample]:
    """``subject_MOS.csv``, which lies on its side: a row of names, one of MOS and one of their deviations.

    Each of the 16 sources has a folder: ``books/books_crf_12_24fps.webm``.
    """
    table = find(root, "subjective_scores/subject_MOS.csv", "subject_MOS.csv")
    rows = {cells[0]: cells[1:] for cells in read_lines(table, 2, delimiter=",")}
    missing = [name for name in ROWS if name not in rows]
    if missing:
        raise DataError(f"no row {', '.join(missing)}; there are {', '.join(rows) or 'none'}", subject=str(table))
    names, scores, deviations = (rows[name] for name in ROWS)
    if not len(names) == len(scores) == len(deviations):
        raise DataError(f"{len(names)} names, {len(scores)} MOS, {len(deviations)} std", subject=str(table))
    for name, mos, std in zip(names, scores, deviations, strict=True):
        source = name.partition("_crf_")[0]
        yield Sample(
            path=root / source / f"{name}.webm",
            mos=number(mos, table, f"MOS of {name}"),
            std=number(std, table, f"std of {name}"),
            group=source,
        )


DATABASE = Database(
    name="liveythfr",
    title="LIVE-YT-HFR",
    kind="video",
    mos_range=(0, 100),
    items=480,
    domains=("frame-rate",),
    licence="free for any use with the copyright notice of the University of Texas at Austin and citation",
    citation="P. C. Madhusudana, X. Yu, N. Birkbeck, Y. Wang, B. Adsumilli, A. C. Bovik, Subjective and Objective Quality "
    "Assessment of High Frame Rate Videos, IEEE Access 9, 2021",
    home="https://github.com/pavancm/LIVE-HFR",
    layout="subjective_scores/subject_MOS.csv and a folder for each source, such as bobblehead/",
    read=read,
)
