"""What OpenVINO does to a process that goes on after a model is let go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PHOTO = Path(__file__).parents[1] / "examples" / "photos" / "parrots.jpg"
PROGRAM = """
import gc, os, signal, sys
import genzqa

models = [genzqa.load(backend="openvino") for _ in range(2)]
print(len({model.score(sys.argv[1]).raw for model in models}))
while models:
    del models[0]  # the older one first
    gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
print("alive")
"""


def test_signals_are_handled_after_models_are_let_go() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, PHOTO], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "handled", "alive"]), done.stderr
