"""The recipe of the embedded model: ``genzqa train --config configs/mini.yaml`` (docs/mini.md tells how it came about)."""
