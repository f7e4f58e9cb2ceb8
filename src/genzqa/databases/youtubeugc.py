"""YouTube-UGC."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_sheet

H264 = "original_videos_h264"


def read(root: Path) -> Iterator[Sample]:
    """``original_videos_MOS_for_YouTube_UGC_dataset.xlsx``, sheet ``MOS``: opinions of whole videos of 20 s.

    The videos are those of the bucket's folder of H.264 copies, or else of its originals: ``Vlog/720P/Vlog_720P-0143.mkv``.
    """
    table = find(root, "original_videos_MOS_for_YouTube_UGC_dataset.xlsx")
    videos = find(root, H264, "original_videos")
    for row in read_sheet(table, ("vid", "category", "resolution", "MOS full", "std full"), sheet="MOS"):
        name = str(row["vid"]).strip()
        if videos.name == H264:
            path = videos / f"{name}_crf_10_ss_00_t_20.0.mp4"
        else:
            path = videos / str(row["category"]) / f"{row['resolution']}P" / f"{name}.mkv"
        yield Sample(
            path=path,
            mos=number(row["MOS full"], table, f"MOS full of {name}"),
            std=number(row["std full"], table, f"std full of {name}"),
        )


DATABASE = Database(
    name="youtubeugc",
    title="YouTube-UGC",
    kind="video",
    mos_range=(1, 5),
    items=1_380,
    domains=("user-generated",),
    licence="videos under Creative Commons Attribution; none stated for the scores",
    citation="Y. Wang, S. Inguva, B. Adsumilli, YouTube UGC Dataset for Video Compression Research, MMSP, 2019",
    home="https://media.withyoutube.com/ugc-dataset",
    layout="original_videos_MOS_for_YouTube_UGC_dataset.xlsx and original_videos_h264/ or original_videos/",
    read=read,
)
