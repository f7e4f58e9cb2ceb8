"""Memory that scoring the largest photos takes. See README.md beside this file.

    python benchmarks/photo.py --out photo.json

Photos are made, and scored, by processes of their own, started by a parent that holds nothing large: on Linux a child begins
with the peak of the process that started it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from video import machine, peak_mib

SIDE = 10_000  # 100 megapixels, the default limit
EXAMPLE = Path(__file__).parents[1] / "examples" / "photos" / "lighthouse.jpg"
SMALL = "512x512 JPEG"
KINDS = {
    "JPEG": "rgb.jpg", "JPEG, progressive": "progressive.jpg", "JPEG, turned": "turned.jpg", "JPEG, with profile": "profile.jpg",
    "JPEG, CMYK": "cmyk.jpg", "PNG": "rgb.png", "PNG, palette": "palette.png", "PNG, alpha": "rgba.png",
    "PNG, 16-bit grey": "grey16.png", "TIFF, LZW": "rgb.tif", "TIFF, 32-bit colour": "float.tif",
}  # fmt: skip


def main() -> None:
    """Make the photos, score them, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--side", type=int, default=SIDE, help="of the square photos, in pixels")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)  # what the processes of its own do
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make, options.side)
    elif options.measure:
        print(json.dumps(measure(options.measure)))
    else:
        with tempfile.TemporaryDirectory(prefix="genzqa-benchmark-") as folder:
            run(Path(folder), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    """One photo after another, each deleted once it is measured."""
    surroundings, photos = machine(), []
    for name, file in {SMALL: "small.jpg", **KINDS}.items():
        path = folder / file
        own_process("--make", path, "--side", 512 if name == SMALL else options.side)
        one = {"name": name, "file_mib": path.stat().st_size / (1 << 20), **json.loads(own_process("--measure", path))}
        path.unlink()
        print(f"{name:<22}{one['file_mib']:>8.0f} MiB file{one['peak_mib']:>8.0f} MiB peak", flush=True)
        photos.append(one)
    if options.out:
        options.out.write_text(
            json.dumps({"machine": surroundings, "side": options.side, "photos": photos}, indent=2) + "\n"
        )


def own_process(*arguments: object) -> str:
    """What this script prints when it runs with these arguments in a new process."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(path: Path) -> dict[str, Any]:
    """What `genzqa score` does with one photo."""
    import genzqa

    result = genzqa.load(offline=True).score(path)
    assert isinstance(result, genzqa.ImageResult)
    return {"peak_mib": round(peak_mib()), "score": result.score, "seconds": round(result.seconds, 2)}


def make(path: Path, side: int) -> None:
    """An example photo enlarged to ``side`` pixels, in the format and mode that the file's name says."""
    import numpy as np
    from PIL import Image, ImageCms

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(EXAMPLE) as example:
        photo = example.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    options: dict[str, Any] = {"quality": 90} if path.suffix == ".jpg" else {}
    if path.suffix == ".png":
        options["compress_level"] = 1
    if path.stem == "progressive":
        options["progressive"] = True
    elif path.stem == "turned":
        options["exif"] = Image.Exif()
        options["exif"][274] = 6
    elif path.stem == "profile":
        options["icc_profile"] = swapped_profile(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    elif path.stem == "cmyk":
        photo = photo.convert("CMYK")
    elif path.stem == "palette":
        photo = photo.quantize(256, dither=Image.Dither.NONE)
    elif path.stem == "rgba":
        photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    elif path.stem == "grey16":
        photo = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    elif path.suffix == ".tif":
        options["compression"] = "tiff_lzw"
    if path.stem == "float":
        import tifffile

        tifffile.imwrite(path, np.asarray(photo, np.float32) / 255, photometric="rgb")
    else:
        photo.save(path, **options)


def swapped_profile(srgb: bytes) -> bytes:
    """sRGB with red and green exchanged, so that it has an effect."""
    return srgb.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")


if __name__ == "__main__":
    main()
