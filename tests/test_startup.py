"""The program's quicker start: what it leaves out, and that nothing else notices. Each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "parrots.jpg"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_compiler_is_not_imported_and_the_score_is_the_same() -> None:
    score = f"import genzqa; print(genzqa.load().score({str(PHOTO)!r}).raw, 'torch._dynamo' in sys.modules)"
    quick = "import sys; from genzqa.cli import startup; startup.own_process = True; startup.import_quickly(); " + score
    value, compiler = run(quick).split()
    assert compiler == "False"
    assert run("import sys; " + score).split()[0] == value


def test_adapters_with_lora_and_the_compiler_work_afterwards(small_scorer: Path) -> None:
    code = (
        "import numpy as np, torch\n"
        "from genzqa.cli import startup\n"
        "startup.own_process = True\n"
        "startup.import_quickly()\n"
        "import genzqa\n"
        f"scorer = genzqa.load('local-dir:{small_scorer}')\n"
        "print(scorer.score(np.zeros((64, 64, 3), np.uint8)).score >= 0, torch._dynamo.__file__ is not None)\n"
    )
    assert run(code) == "True True"


def test_a_shared_process_is_left_alone() -> None:
    code = (
        "import sys\n"
        "from genzqa.cli import startup\n"
        "startup.import_quickly()\n"
        "print('diffusers' in sys.modules, 'torch' in sys.modules)\n"
    )
    assert run(code) == "False False"
