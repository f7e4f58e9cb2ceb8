"""What frozen networks make of a list of files, kept on disk in shards; what is read of it is never all in memory."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from genzqa.errors import DataError
from genzqa.files import write_atomically

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
"""Axes of ``(..., H, W)`` pixels in each form: as they are, mirrored, upside down, both. A flip of the pixels is not a flip
of what a network makes of them, so each form is encoded for itself."""
_FORMAT = 2  # of the shards; another one's are not read


class ShardedCache(ABC):
    """Tensors of files, in one folder for each list of files and each way to encode them.

    Args:
        folder: Where caches are kept.
        paths: The files, in the order by which they are asked for.
        encoding: All that decides what is made of a file; part of the folder's name.
        shard: Files in one shard.
        flips: Whether the three flipped forms are kept too.

    Raises:
        DataError: If a file is not there.
    """

    def __init__(
        self, folder: Path, paths: Sequence[Path], encoding: Sequence[object], *, shard: int, flips: bool
    ) -> None:
        self.forms = len(FLIPS) if flips else 1
        self._paths, self._shard_size = list(paths), shard
        what = [_FORMAT, *encoding, self.forms, *map(_identity, self._paths)]
        self.folder = folder / hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        self._open: dict[int, Any] = {}

    @property
    def shards(self) -> int:
        """How many files of its own there are when it is complete."""
        return -(-len(self._paths) // self._shard_size)

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        return [number for number in range(self.shards) if not self._shard(number).exists()]

    def files_in(self, numbers: Sequence[int]) -> int:
        """Of how many files these shards hold what was made."""
        return sum(len(self._of(number)) for number in numbers)

    def build(self, numbers: Sequence[int], progress: Callable[[], object] = lambda: None) -> None:
        """Encode these shards; each appears whole or not at all, so that building can be stopped and gone on with.

        Args:
            numbers: Of the shards.
            progress: Called after every file.

        Raises:
            DataError: If a file cannot be decoded.
            OutputError: If a shard cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            rows = self._encoded(self._of(number), progress)
            made = {f"{name}.{row}": value.contiguous() for row, one in enumerate(rows) for name, value in one.items()}
            write_atomically(self._shard(number), save(made))

    def _read(self, name: str, index: int, form: int) -> Tensor:
        """One tensor of one file, in one of its forms.

        Raises:
            DataError: If its shard is missing or damaged.
        """
        number, row = divmod(index, self._shard_size)
        try:
            if number not in self._open:
                self._open[number] = safe_open(self._shard(number), framework="pt")
            return torch.as_tensor(self._open[number].get_slice(f"{name}.{row}")[form])
        except (OSError, SafetensorError) as error:
            raise DataError(f"cached {name} cannot be read: {error}", subject=str(self._shard(number)),
                            hint="delete the file; it is made again") from None  # fmt: skip

    @abstractmethod
    def _encoded(self, paths: Sequence[Path], progress: Callable[[], object]) -> list[dict[str, Tensor]]:
        """For each file its tensors by name, each with the forms first."""

    def _of(self, number: int) -> list[Path]:
        return self._paths[number * self._shard_size : (number + 1) * self._shard_size]

    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"


def unusable(path: Path, reason: str) -> DataError:
    """A file that cannot be trained on."""
    return DataError(
        f"cannot be trained on: {reason}", subject=str(path), hint="genzqa data check finds all such files"
    )


def _identity(path: Path) -> list[object]:
    try:
        found = path.stat()
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from None
    return [str(path.absolute()), found.st_size, found.st_mtime_ns]
