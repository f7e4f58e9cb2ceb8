"""Widen the interval of the embedded model until it holds on a database that nothing was trained on.

    genzqa evaluate --model mini --data agiqa3k=AGIQA-3K --out across/
    python training/mini/elsewhere.py --predictions across/agiqa3k.parquet --embedded src/genzqa/embedded/mini

A database that is used so is one to steer by; whether the interval holds has to be looked at on another. The scores stay.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.torch import load_file

from genzqa.model.adapter import WEIGHTS, load_scorer, save_adapter
from genzqa.scoring.calibration import hold_elsewhere
from genzqa.training.mini.export import write_manifest


def widen(embedded: Path, predictions: Path) -> None:
    """Write the wider calibration into the adapter; ``predictions`` is what ``genzqa evaluate`` wrote of the same weights.

    Raises:
        ValueError: The predictions are of other weights, or the interval holds for this database already.
    """
    adapter = embedded / "adapter"
    config = load_scorer(f"local-dir:{adapter}").config
    rows = pq.read_table(predictions, columns=["raw", "quality", "score"]).drop_null()
    raw, quality, score = (rows[name].to_numpy() for name in ("raw", "quality", "score"))
    calibration = config.calibration
    assert calibration is not None
    if not np.allclose(np.interp(raw, calibration.raw_knots, calibration.score_knots), score, atol=1e-3):
        raise ValueError(f"{predictions} is of other weights")
    source = f"{len(raw):,} images of {predictions.stem}"
    if source in calibration.source:
        raise ValueError(f"the interval was made to hold for {source} before")
    wider = hold_elsewhere(calibration, raw, quality, source=source)
    save_adapter(adapter, load_file(adapter / WEIGHTS), config.model_copy(update={"calibration": wider}))
    write_manifest(embedded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path, required=True, help="NAME.parquet of genzqa evaluate")
    parser.add_argument("--embedded", type=Path, required=True)
    arguments = parser.parse_args()
    widen(arguments.embedded, arguments.predictions)


if __name__ == "__main__":
    main()
