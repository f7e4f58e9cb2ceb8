"""LIVE-Qualcomm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_mat, text
from genzqa.databases.raw import in_container
from genzqa.errors import DataError


def read(root: Path) -> Iterator[Sample]:
    """``qualcommSubjectiveData.mat``: ``unBiasedMOS``, the scores that the field reports.

    The raw videos lie in a folder for each of the six distortions; what they were converted to is read in their place.
    """
    table = find(root, "qualcommSubjectiveData.mat")
    stored = read_mat(table, ("qualcommVideoData", "qualcommSubjectiveData"))
    names, types, folders = (
        _field(table, stored, "qualcommVideoData", field) for field in ("vidNames", "distortionType", "distortionNames")
    )
    scores = _field(table, stored, "qualcommSubjectiveData", "unBiasedMOS")
    if not len(names) == len(types) == len(scores):
        raise DataError(f"{len(names)} videos, {len(types)} types, {len(scores)} scores", subject=str(table))
    for cell, kind, mos in zip(names, types, scores, strict=True):
        name = text(cell)
        folder = int(number(kind, table, f"distortionType of {name}"))
        if not 1 <= folder <= len(folders):
            raise DataError(f"distortionType of {name} is {folder}, of {len(folders)}", subject=str(table))
        yield Sample(
            path=in_container(root / text(folders[folder - 1]) / name),
            mos=number(mos, table, f"unBiasedMOS of {name}"),
            group=_scene(name),
        )


def _field(table: Path, stored: dict[str, Any], variable: str, field: str) -> npt.NDArray[Any]:
    struct = np.asarray(stored[variable])
    if field not in (struct.dtype.names or ()):
        raise DataError(f"{variable} has no field {field}", subject=str(table))
    return np.atleast_1d(struct[field].item())


def _scene(name: str) -> str:
    """Day and scene: what comes before the phone in ``0912_Burgers_GS5_…`` and ``0911driving_gs5_…``; case varies."""
    first, second, *_ = [*name.lower().split("_"), ""]
    return f"{first}_{second}" if first.isdigit() else first


DATABASE = Database(
    name="livequalcomm",
    title="LIVE-Qualcomm",
    kind="video",
    mos_range=(0, 100),
    items=208,
    domains=("user-generated",),
    licence="free for any use with the copyright notice of the University of Texas at Austin and citation",
    citation="D. Ghadiyaram, J. Pan, A. C. Bovik, A. K. Moorthy, P. Panda, K.-C. Yang, In-Capture Mobile Video Distortions: A "
    "Study of Subjective Behavior and Objective Algorithms, IEEE Transactions on Circuits and Systems for Video Technology 28(9), "
    "2018",
    home="https://www.colorado.edu/lab/live/live-qualcomm-mobile-capture-video-quality-database",
    layout="qualcommSubjectiveData.mat, Artifacts/, Color/, Exposure/, Focus/, Sharpness/ and Stabilization/ "
    "with the .yuv files, each converted to .mkv or .mp4",
    read=read,
)
