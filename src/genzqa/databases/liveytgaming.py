"""LIVE-YT-Gaming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_mat, text
from genzqa.errors import DataError


def read(root: Path) -> Iterator[Sample]:
    """``LIVE-YT-Gaming.mat``: ``video_list``, names without suffix such as ``CSGO-002``, and ``MOS``.

    The spelling of the file and of the folder is taken from copies that others use.
    """
    table = find(root, "LIVE-YT-Gaming.mat", "LIVEYTGaming.mat", "LIVE_YT_Gaming.mat", "data.mat")
    videos = find(root, "mp4", "videos", ".")
    names, scores = (np.atleast_1d(column) for column in read_mat(table, ("video_list", "MOS")).values())
    if len(names) != len(scores):
        raise DataError(f"{len(names)} videos and {len(scores)} scores", subject=str(table))
    for cell, mos in zip(names, scores, strict=True):
        name = text(cell).removesuffix(".mp4")
        yield Sample(path=videos / f"{name}.mp4", mos=number(mos, table, f"MOS of {name}"))


DATABASE = Database(
    name="liveytgaming",
    title="LIVE-YT-Gaming",
    kind="video",
    mos_range=(0, 100),
    items=600,
    domains=("gaming", "user-generated"),
    licence="free for any use with the copyright notice of the University of Texas at Austin and citation",
    citation="X. Yu, Z. Ying, N. Birkbeck, Y. Wang, B. Adsumilli, A. C. Bovik, Subjective and Objective Analysis of Streamed "
    "Gaming Videos, IEEE Transactions on Games, 2023",
    home="https://live.ece.utexas.edu/research/LIVE-YT-Gaming/index.html",
    layout="LIVE-YT-Gaming.mat and mp4/",
    read=read,
)
