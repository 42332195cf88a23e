"""Compares two images by what can be seen of them: their pixels."""

from __future__ import annotations

import base64
import binascii
import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_CHANNEL_DIFFERENCE = 8
"""A pixel differs if one of its channels (red, green, blue, opacity) differs by more, of 255."""

MAX_SHARE = 0.001
"""Two images are the same if at most this share of their pixels differs."""

MAX_PIXELS = 50_000_000  # a small file can claim to be an image that fills the memory
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
SHALLOW = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr")


def image_difference(one: str, other: str) -> str:
    """What differs between two images in base64, in words; empty if they look the same.

    Images that cannot be decoded, are larger than `MAX_PIXELS`, or move are compared by bytes.
    """
    was, now = _content(one), _content(other)
    if was == now:
        return ""
    first, second = _decoded(was), _decoded(now)
    if first is None or second is None:
        return "the bytes differ (an image that cannot be compared by its pixels)"
    if first.size != second.size:
        return f"{_size(first)} pixels then, {_size(second)} now"
    share = _differing_share(first, second)
    return f"{_percent(share)} of the pixels differ" if share > MAX_SHARE else ""


def _differing_share(one: Image, other: Image) -> float:
    from PIL import ImageChops  # noqa: PLC0415 - only those wait for it who have images that differ

    differences = ImageChops.difference(one, other).split()
    largest = differences[0]
    for difference in differences[1:]:
        largest = ImageChops.lighter(largest, difference)
    return sum(largest.histogram()[MAX_CHANNEL_DIFFERENCE + 1 :]) / (one.width * one.height)


def _decoded(content: bytes) -> Image | None:
    """The image as pixels of red, green, blue and opacity; None if it must not or cannot be."""
    from PIL import Image  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            # Pillow warns of images that are refused below.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                moves = getattr(image, "n_frames", 1) > 1
                if image.width * image.height > MAX_PIXELS or moves or image.mode not in SHALLOW:
                    return None
                return image.convert("RGBA")
    except (
        *(OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, OverflowError),
        *(MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
    ):  # whatever a damaged file makes the decoders raise
        return None


def _content(data: str) -> bytes:
    packed = "".join(data.split())
    try:
        return base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        return packed.encode("utf-8", "replace")


def _size(image: Image) -> str:
    return f"{image.width}×{image.height}"


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %" if share < 0.1 else f"{share * 100:.0f} %"
