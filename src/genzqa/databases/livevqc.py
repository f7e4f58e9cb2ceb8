"""LIVE-VQC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_mat, text
from genzqa.errors import DataError


def read(root: Path) -> Iterator[Sample]:
    """``data.mat``: ``video_list`` and ``mos``, of the same order."""
    table = find(root, "data.mat")
    videos = find(root, "Video")
    names, scores = (np.atleast_1d(column) for column in read_mat(table, ("video_list", "mos")).values())
    if len(names) != len(scores):
        raise DataError(f"{len(names)} videos and {len(scores)} scores", subject=str(table))
    for cell, mos in zip(names, scores, strict=True):
        name = text(cell)
        yield Sample(path=videos / name, mos=number(mos, table, f"mos of {name}"))


DATABASE = Database(
    name="livevqc",
    title="LIVE-VQC",
    kind="video",
    mos_range=(0, 100),
    items=585,
    domains=("user-generated",),
    licence="free for any use with the copyright notice of the University of Texas at Austin and citation",
    citation="Z. Sinno, A. C. Bovik, Large-Scale Study of Perceptual Video Quality, IEEE Transactions on Image Processing "
    "28(2), 2019",
    home="https://www.colorado.edu/lab/live/live-video-quality-challenge-vqc-database",
    layout="data.mat and Video/",
    read=read,
)
