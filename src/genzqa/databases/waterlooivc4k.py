"""Waterloo IVC 4K."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_lines
from genzqa.errors import DataError

SIZES = {"540p": "960x540", "1080p": "1920x1080", "2160p": "3840x2160"}


def read(root: Path) -> Iterator[Sample]:
    """``scores.txt``: lines of encoder, source number, resolution, distortion level and MOS, without a header.

    ``HEVC, 1, 540p, 2, 39.46`` is the score of ``HEVC/01/960x540_2.mp4``.
    """
    table = find(root, "scores.txt")
    for encoder, source, resolution, level, mos, *_ in read_lines(table, 5, delimiter=","):
        if resolution not in SIZES or not source.isdigit():
            raise DataError(f"{encoder}, {source}, {resolution}, {level} is no video", subject=str(table))
        name = f"{encoder}/{source.zfill(2)}/{SIZES[resolution]}_{level}.mp4"
        yield Sample(path=root / name, mos=number(mos, table, f"MOS of {name}"), group=source.zfill(2))


DATABASE = Database(
    name="waterlooivc4k",
    title="Waterloo IVC 4K",
    kind="video",
    mos_range=(0, 100),
    items=1_200,
    domains=("uhd", "streaming"),
    licence="free for any use with the copyright notice of the University of Waterloo and citation",
    citation="Z. Li, Z. Duanmu, W. Liu, Z. Wang, AVC, HEVC, VP9, AVS2 or AV1? - A Comparative Study of State-of-the-Art Video "
    "Encoders on 4K Videos, ICIAR, 2019",
    home="https://ivc.uwaterloo.ca/database/4KVQA.html",
    layout="scores.txt, H264/, HEVC/, VP9/, AVS2/ and AV1/",
    read=read,
)
