"""Image files and colour profiles written byte by byte, for what Pillow cannot write."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encode(image, image_format, **options):
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def blocks(seed=0, size=(32, 24), cell=8):
    """Flat colour blocks, which lossy coders keep well and every flip or rotation changes."""
    width, height = size
    cells = np.random.default_rng(seed).integers(0, 256, (height // cell, width // cell, 3))
    return np.kron(cells, np.ones((cell, cell, 1))).astype(np.uint8)


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour_type, rows, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(array, photometric, *, order="<", planar=1, sample_format=1, bits=None, extra=(), data=None):
    """One uncompressed page; the array is (H, W) or (H, W, C) in native order."""
    height, width = array.shape[:2]
    samples = 1 if array.ndim == 2 else array.shape[2]
    if data is None:
        planes = np.moveaxis(array, -1, 0) if planar == 2 else array
        data = np.ascontiguousarray(planes).astype(array.dtype.newbyteorder(order)).tobytes()
    strips = samples if planar == 2 else 1
    step = len(data) // strips
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits or array.dtype.itemsize * 8] * samples),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [step * i for i in range(strips)]),
        277: ("H", [samples]),
        278: ("I", [height]),
        279: ("I", [step] * strips),
        284: ("H", [planar]),
        339: ("H", [sample_format] * samples),
        **dict(extra),
    }
    spill_at = 8 + 2 + 12 * len(tags) + 4
    sizes = {tag: struct.calcsize("=" + code * len(values)) for tag, (code, values) in tags.items()}
    data_at = spill_at + sum(size for size in sizes.values() if size > 4)
    entries, spill = b"", b""
    for tag, (code, values) in sorted(tags.items()):
        if tag == 273:
            values = [data_at + value for value in values]
        raw = struct.pack(order + code * len(values), *values)
        head = struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[code], len(values))
        if len(raw) <= 4:
            entries += head + raw.ljust(4, b"\0")
        else:
            entries += head + struct.pack(order + "I", spill_at + len(spill))
            spill += raw
    magic = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return magic + struct.pack(order + "H", len(tags)) + entries + bytes(4) + spill + data


def _fixed(*values):
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _profile(kind, space, pcs, tags):
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"Test\0" + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + _fixed(0.9642, 1, 0.8249),
        **tags,
    }
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02400000, kind, space, pcs)
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _gamma(value):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256)) + bytes(2)


def rgb_profile(order="rgb", gamma=2.2):
    """A matrix profile with the sRGB primaries, dealt to the channels in the given order."""
    primaries = {"r": (0.4361, 0.2225, 0.0139), "g": (0.3851, 0.7169, 0.0971), "b": (0.1431, 0.0606, 0.7141)}
    tags = {}
    for channel, primary in zip("rgb", order, strict=True):
        tags[channel.encode() + b"XYZ"] = b"XYZ " + bytes(4) + _fixed(*primaries[primary])
        tags[channel.encode() + b"TRC"] = _gamma(gamma)
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma):
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(gamma)})


def cmyk_profile():
    """A press on which every ink is black: each ink on its own already gives Lab L = 50 %, two give none."""
    straight = bytes(range(256))
    table = b""
    for inks in np.ndindex(2, 2, 2, 2):
        table += bytes([max(0, 255 - 128 * sum(inks)), 128, 128])
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut + straight * 4 + table + straight * 3})


def gradient_image(mode="RGB"):
    return Image.fromarray(blocks()).convert(mode)
