"""KADIS-700k, which carries no human scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, read_csv
from genzqa.errors import DataError


def read(root: Path) -> Iterator[Sample]:
    """Always an error: ``kadis700k_ref_imgs.csv`` tells what distortions to apply to which photo, not what people said.

    The database is made for learning from full-reference measures, which its users compute. Such numbers are no MOS;
    who wants to train on them nevertheless names them as a table of their own.
    """
    table = find(root, "kadis700k_ref_imgs.csv")
    raise DataError(
        "carries no human scores",
        subject=str(table),
        hint="use kadid10k, its sibling with scores, or name numbers of your own: NAME=FILE.csv",
    )


def files(root: Path) -> Iterator[Path]:
    """The references that the table lists. The distorted copies are not downloaded but made of them, by the database's code."""
    table = find(root, "kadis700k_ref_imgs.csv")
    photos = find(root, "ref_imgs")
    for row in read_csv(table, ("ref_im",)):
        yield photos / row["ref_im"]


DATABASE = Database(
    name="kadis",
    title="KADIS-700k",
    kind="image",
    mos_range=None,
    items=700_000,
    domains=("synthetic",),
    licence="photos under the Pixabay licence; free with citation",
    citation="H. Lin, V. Hosu, D. Saupe, DeepFL-IQA: Weak Supervision for Deep IQA Feature Learning, arXiv:2001.08113, 2020",
    home="https://database.mmsp-kn.de/kadid-10k-database.html",
    layout="kadis700k_ref_imgs.csv, ref_imgs/ and dist_imgs/",
    read=read,
    files=files,
)
