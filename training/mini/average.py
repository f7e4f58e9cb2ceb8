"""Average finished states of one training: ``python training/mini/average.py OUT.safetensors A.safetensors=0.55 B.safetensors=0.45``.

States that one training came through, or that were trained on from the same one, can be averaged weight by weight; what each is good
at is kept in part.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import load_file

from train import keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("states", nargs="+", metavar="STATE=SHARE", help="shares add up to 1")
    options = parser.parse_args()
    shares = {Path(path): float(share) for path, _, share in (each.rpartition("=") for each in options.states)}
    if abs(sum(shares.values()) - 1) > 1e-6:
        parser.error("the shares do not add up to 1")
    states = [(load_file(path), share) for path, share in shares.items()]
    first, names = states[0][0], {name for state, _ in states for name in state}
    if any(state.keys() != names for state, _ in states):
        parser.error("these are not states of the same network")
    keep({name: sum(share * state[name] for state, share in states).to(first[name].dtype) if first[name].is_floating_point()
          else first[name] for name in first}, options.out)  # fmt: skip


if __name__ == "__main__":
    main()
