"""Make a finished student the one inside the package.

``python training/student/embed.py --student mini-student --embedded src/genzqa/embedded/mini-student``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from genzqa.files import write_atomically
from genzqa.student.config import CONFIG, ONNX, PARITY, WEIGHTS
from genzqa.student.folder import load_student
from genzqa.training.mini.export import write_manifest


def embed(student: Path, embedded: Path) -> None:
    """Copy what scores, and nothing of its training; the checksums of all files come last.

    Raises:
        ModelError: If the folder holds no sound student.
    """
    load_student(student, f"local-dir:{student}")
    embedded.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS, ONNX, PARITY, CONFIG):
        write_atomically(embedded / name, (student / name).read_bytes())
    write_manifest(embedded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--embedded", type=Path, required=True)
    arguments = parser.parse_args()
    embed(arguments.student, arguments.embedded)


if __name__ == "__main__":
    main()
