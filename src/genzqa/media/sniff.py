"""What a file is, told from its first bytes; the extension is never asked.

Only what must be known before Pillow sees the data is read here: the format, and the size in pixels for those formats
whose Pillow plugin already allocates a canvas while opening (WebP, animated PNG, GIF).
"""

from __future__ import annotations

import struct
import zlib

from genzqa.errors import CorruptInputError, UnsupportedFormatError

HEAD_BYTES = 256
"""Enough for every signature below, the brand list of an AVIF file included."""

SUPPORTED = "JPEG, PNG, WebP, AVIF, TIFF, BMP and GIF"

_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),  # BigTIFF
    (b"MM\x00+", "tiff"),
)

_FOREIGN = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (b"8BPS", "a Photoshop file"),
    (b"\x00\x00\x01\x00", "an icon file"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG file"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
)

_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})


def sniff(head: bytes) -> str:
    """The format of a file as ``"jpeg"``, ``"png"``, ``"webp"``, ``"avif"``, ``"tiff"``, ``"bmp"`` or ``"gif"``.

    Args:
        head: The first `HEAD_BYTES` bytes, or the whole file when it is shorter.

    Raises:
        CorruptInputError: There are no bytes.
        UnsupportedFormatError: None of the seven formats.
    """
    if not head:
        raise CorruptInputError("the file is empty", hint="copy or download it again")
    if head[:2] in (b"II", b"MM") and head[8:10] == b"CR":
        raise _unsupported("a camera raw file")
    for signature, image_format in _SIGNATURES:
        if head.startswith(signature):
            return image_format
    # Two letters alone also begin ordinary text, so the header length that follows must be one that exists.
    if head[:2] == b"BM" and (len(head) < 18 or int.from_bytes(head[14:18], "little") in _BMP_HEADERS):
        return "bmp"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return _sniff_brands(head)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for signature, what in _FOREIGN:
        if head.startswith(signature) or text.startswith(signature):
            raise _unsupported(what)
    if head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace():
        raise _unsupported("a PPM, PGM or PBM image")
    raise UnsupportedFormatError("neither a photo nor a video in a format we read",
                                 hint=f"photos: {SUPPORTED}; of videos see docs/video.md")  # fmt: skip


def _sniff_brands(head: bytes) -> str:
    """AVIF, HEIC and MP4 share one container; the brand list tells them apart (ISO/IEC 14496-12, box ``ftyp``)."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12]} | {head[at : at + 4] for at in range(16, length - 3, 4)}
    if brands & {b"avif", b"avis"}:
        return "avif"
    raise _unsupported("a HEIC photo" if brands & _HEIC_BRANDS else "a video or another ISO media file")


def _unsupported(what: str) -> UnsupportedFormatError:
    return UnsupportedFormatError(
        f"this is {what}, which is not supported", hint=f"convert it to PNG or JPEG; supported are {SUPPORTED}"
    )


def declared_size(image_format: str, head: bytes) -> tuple[int, int] | None:
    """Width and height as the header states them, or None for formats that Pillow opens without allocating.

    Raises:
        struct.error: The header is cut short.
    """
    if image_format == "png":
        width, height = struct.unpack_from(">II", head, 16)
    elif image_format == "gif":
        width, height = struct.unpack_from("<HH", head, 6)
    elif image_format == "webp":
        width, height = _webp_size(head)
    else:
        return None
    return width, height


def _webp_size(head: bytes) -> tuple[int, int]:
    """RFC 9649: canvas of the extended layout, or the frame of the two simple ones."""
    if head[12:16] == b"VP8X":
        low, high, more = struct.unpack_from("<HHH", head, 24)
        return 1 + (low | (high & 0xFF) << 16), 1 + (high >> 8 | more << 8)
    if head[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def check_png(data: bytes) -> None:
    """Verify the checksums of all critical chunks.

    Pillow does not check those of the pixel data, so a flipped bit there could come out as a wrong but valid picture.

    Raises:
        CorruptInputError: A checksum is wrong, or the file ends before its end mark.
    """
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if kind[:1].isupper() and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise CorruptInputError("the PNG data is damaged: a checksum is wrong", hint="copy or download it again")
        if kind == b"IEND":
            return
        at = end
    raise CorruptInputError("the PNG data is cut short", hint="copy or download it again")
