"""Exporting a model: a graph that other runtimes execute, checked against torch before anything is left behind."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from genzqa import __version__
from genzqa.engine import graph
from genzqa.engine.engine import EngineOptions, Precision
from genzqa.engine.exported import CARD, FRAMES, PARITY, ExportCard, Layer, digests, is_export
from genzqa.engine.onnx_engine import MODEL
from genzqa.engine.open import kept_precision, pass_of
from genzqa.engine.openvino_engine import ENCODER, READER, require_integers, write_graphs, write_integers
from genzqa.errors import ConfigError, ModelCorruptError, OutputError
from genzqa.media.image import ImageSource
from genzqa.media.prepare import prepare_photo
from genzqa.media.preprocess import to_network
from genzqa.model.adapter import CONFIG, VIDEO_PARTS, WEIGHTS, LoadedScorer, load_scorer, locate_adapter, read_weights
from genzqa.model.names import parse_name
from genzqa.scoring.parity import parity, passes, probe_images, require_close
from genzqa.student.config import ONNX
from genzqa.student.folder import find_student

FEWEST, MOST = 8, 32  # photos that ranges of integers are taken from and checked on, half of them each


def export_model(name: str, to: Literal["openvino", "onnx"], folder: Path, *, precision: Precision = "fp32",
                 photos: Sequence[ImageSource] = (), offline: bool = False) -> dict[str, float]:  # fmt: skip
    """Write a trained scorer as a graph that other runtimes execute, checked against torch.

    Args:
        name: See `genzqa.load`.
        to: What for.
        folder: Written whole or not at all; must not exist, or be empty.
        precision: In which it is to be run; OpenVINO alone knows ``bf16`` and ``int8``. A model too narrow for bf16 stays in fp32.
        photos: For ``int8``: photos like those that it is to score, eight at least. Thirty-two are taken, evenly: every other one
            for the ranges of what is rounded, the rest for the check.
        offline: Never open a connection.

    Returns:
        The largest differences from torch in fp32, also in ``parity.json``.

    Raises:
        ConfigError: The extra is missing, the model is an export or a student already, or, for ``int8``, it is too narrow, there
            are too few photos, or this processor has no exact sums of integers.
        InputError: A photo cannot be read.
        ModelError: The graph does not give the model's scores; nothing is written.
        OutputError: The folder cannot be written.
    """
    EngineOptions(backend=to, precision=precision)  # refuses what cannot be run
    if (student := find_student(name)) is not None:
        raise ConfigError("this is a student, which is an ONNX file as well", subject=name,
                          hint=f"copy {student / ONNX}; no other graph is made of it")  # fmt: skip
    if is_export(locate_adapter(parse_name(name))):
        raise ConfigError("this is an exported model already", subject=name, hint="export the model it was made from")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError("is in the way", subject=str(folder), hint="give a new folder")
    if precision == "int8":
        require_integers()
    _require_photos(len(photos), precision)
    loaded = load_scorer(name, offline=offline, trainable=False)
    size = loaded.config.preprocessing.size
    precision = _precision(loaded, precision, name)
    taken = _pixels(photos, size)
    with _made_whole(folder) as made:
        (made / CONFIG).write_text(loaded.config.model_dump_json(indent=2) + "\n", "utf-8")
        weights, _ = read_weights(locate_adapter(parse_name(name)) / WEIGHTS)
        save_file({key: value for key, value in weights.items() if key.startswith(VIDEO_PARTS)}, made / WEIGHTS)
        if precision == "int8":
            with tempfile.TemporaryDirectory(dir=made.parent, prefix=".exporting-") as exact:
                _write_graphs(Path(exact), loaded, to)
                return _in_integers(Path(exact), made, loaded, name, taken)
        _write_graphs(made, loaded, to)
        return _checked(made, loaded, name, _card(loaded, to, precision), probe_images(size))


def _write_graphs(folder: Path, loaded: LoadedScorer, to: Literal["openvino", "onnx"]) -> None:
    for frames in passes(loaded):
        place = folder / FRAMES if frames else folder
        place.mkdir(exist_ok=True)
        plan = pass_of(loaded.model, loaded.config, frames=frames)
        if to == "onnx":
            graph.to_onnx(plan, place / MODEL)
        else:
            write_graphs(plan, place)


def _in_integers(exact: Path, folder: Path, loaded: LoadedScorer, name: str, pixels: Tensor) -> dict[str, float]:
    """Write the graphs of ``exact`` in integers, as many of them as keep the scores; raise `ModelCorruptError` if none does."""

    def attempt(parts: tuple[str, ...]) -> dict[str, float]:
        for frames in passes(loaded):
            sub = FRAMES if frames else ""
            write_integers(exact / sub, folder / sub, [photo[None] for photo in pixels[::2]], parts)
        return _checked(folder, loaded, name, _card(loaded, "openvino", "int8", parts), pixels[1::2])

    with suppress(ModelCorruptError):
        return attempt((ENCODER, READER))
    return attempt((READER,))


def _checked(folder: Path, loaded: LoadedScorer, name: str, card: ExportCard, pixels: Tensor) -> dict[str, float]:
    """Write the card and the parity; raise `ModelCorruptError` unless the graphs give the model's scores."""
    card = card.model_copy(update={"files": digests(folder)})
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", "utf-8")
    found = parity(folder, card, loaded, pixels)
    (folder / PARITY).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    require_close(found, card.precision, name)
    return found


def _card(
    loaded: LoadedScorer, to: Literal["openvino", "onnx"], precision: Precision, integers: Sequence[str] = ()
) -> ExportCard:
    """Without the digests, which `_checked` adds."""
    return ExportCard(
        backend=to, precision=precision, integers=[Path(part).stem for part in integers], model=loaded.config.name,
        weights_sha256=loaded.weights_sha256, base_sha256=loaded.base_sha256, genzqa=__version__,
        blocks=[Layer(**vars(block)) for block in loaded.model.blocks], files={},
    )  # fmt: skip


def _require_photos(count: int, precision: Precision) -> None:
    """Raise `ConfigError` unless there are as many as the precision asks for."""
    if precision == "int8" and count < FEWEST:
        raise ConfigError(f"int8 takes the ranges of what it rounds from photos, of which there are {count}",
                          hint=f"give {FEWEST} or more that are like those to be scored, by --photos")  # fmt: skip
    if precision != "int8" and count:
        raise ConfigError(
            f"{precision} takes nothing from photos", subject="--photos", hint="leave them out, or export in int8"
        )


def _precision(loaded: LoadedScorer, precision: Precision, name: str) -> Precision:
    """The one that a model is exported in where this one is asked for; `ConfigError` if it is too narrow for ``int8``."""
    kept = kept_precision(loaded.model, precision)
    if precision == "int8" and kept != precision:
        raise ConfigError("this model is too narrow to keep its scores in int8", subject=name, hint="export it in fp32")
    return kept


def _pixels(photos: Sequence[ImageSource], size: int) -> Tensor:
    """`MOST` photos at most, ``(B, 3, size, size)`` in [-1, 1]."""
    places = sorted({len(photos) * number // MOST for number in range(MOST)}) if photos else []
    pixels = [to_network(prepare_photo(photos[place], size).pixels) for place in places]
    return torch.stack(pixels) if pixels else torch.empty(0, 3, size, size)


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that becomes it when the block ends well."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".exporting-"))
        try:
            yield made
            made.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", subject=str(folder)) from None
