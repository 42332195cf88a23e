"""Images as a model is sent them: bounded in pixels and bytes, at rest, and never damaged."""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_IMAGES = 4
"""Most figures of one cell that a model is sent; of more, the last ones."""

MAX_SIDE = 1024
"""Pixels of the longer side: more costs more, and most providers scale to about that themselves."""

MAX_BYTES = 1_000_000
"""Bytes of an image; a figure of lines has a tenth of that."""

MAX_PIXELS = 40_000_000
"""Pixels of an image before it is scaled: a small file can claim to fill the memory."""

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
_TOO_LARGE = f"it has more than {MAX_PIXELS:,} pixels"
_JPEG_QUALITIES = (90, 75, 50)
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # more than 255 shades of grey
_PLAIN = ("1", "L", "LA", "P", "RGB", "RGBA")
_ORIENTATION = 0x0112  # EXIF: how a camera was held


class UnfitPictureError(ValueError):
    """Why an image cannot be sent, as the end of a sentence: `"it is damaged"`."""


@dataclass(frozen=True)
class Picture:
    """An image in a form that every provider takes: PNG or JPEG; `is_frame`: one of several."""

    mime: str
    content: bytes
    is_frame: bool = False

    @property
    def url(self) -> str:
        """The image as a data URL."""
        return data_url(self.mime, self.content)


def picture(content: bytes) -> Picture:
    """The image in the file `content`, at most `MAX_SIDE` pixels long and `MAX_BYTES` large.

    A PNG or JPEG that fits stays byte for byte what it is. Others are scaled, on white where they
    are transparent; a JPEG stays one, the rest becomes PNG, or JPEG where that would be too large.
    Of one that moves the first frame is taken. The same content always gives the same bytes.

    Raises UnfitPictureError for what is no image, is damaged, or has over `MAX_PIXELS` pixels.
    """
    # Late: it takes a while to import, and most runs have no images.
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            # Pillow warns of images that are refused here.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return _fitting(image, content)
    except UnfitPictureError:
        raise
    except UnidentifiedImageError:
        raise UnfitPictureError("it is no image that can be read") from None
    except Image.DecompressionBombError:
        raise UnfitPictureError(_TOO_LARGE) from None
    except Exception as error:  # decoders raise whatever they like for a damaged file
        raise UnfitPictureError("it is damaged") from error


def from_pixels(image: Image) -> Picture:
    """The image of Pillow's as a `Picture`. Raises UnfitPictureError if it is too large."""
    return _encoded(_flat(_bounded(image)))


def data_url(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def header_size(mime: str, data: str) -> tuple[int, int]:
    """Width and height in pixels of a figure, by the first bytes of its base64 (SVG: its text).

    Raises ValueError, IndexError or binascii.Error if they do not tell.
    """
    return _SIZES[mime](data)


def _fitting(image: Image, content: bytes) -> Picture:
    mime = {"PNG": "image/png", "JPEG": "image/jpeg"}.get(image.format or "", "")
    _bounded(image)
    moves = bool(getattr(image, "is_animated", False))
    image.load()  # what cannot be decoded is not sent as it is either
    is_upright = image.getexif().get(_ORIENTATION, 1) == 1
    fits = max(image.size) <= MAX_SIDE and len(content) <= MAX_BYTES and image.mode in _PLAIN
    if mime and fits and is_upright and not moves:
        return Picture(mime, content)
    return _encoded(_flat(image), is_jpeg=mime == "image/jpeg", is_frame=moves)


def _bounded(image: Image) -> Image:
    if image.width * image.height > MAX_PIXELS:
        raise UnfitPictureError(_TOO_LARGE)
    if not image.width or not image.height:
        raise UnfitPictureError("it has no pixels")
    return image


def _flat(image: Image) -> Image:
    """The image upright, scaled, in red, green and blue, on white where it is transparent."""
    from PIL import Image, ImageOps  # noqa: PLC0415

    if image.mode in _DEEP:
        image = _shallow(image)
    see_through = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    image = image.convert("RGBA" if see_through else "RGB")
    share = min(1.0, MAX_SIDE / max(image.size))
    if share < 1:
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if see_through:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        white.info = image.info
        image = white.convert("RGB")
    return ImageOps.exif_transpose(image)


def _shallow(image: Image) -> Image:
    """The darkest of many shades as black, the lightest as white."""
    image = image.convert("F")
    low, high = image.getextrema()
    if not (isinstance(low, float) and isinstance(high, float) and math.isfinite(high - low)):
        raise UnfitPictureError("its shades are not all finite numbers")
    scale = 255 / (high - low) if high > low else 0.0
    return image.point(lambda shade: shade * scale - low * scale).convert("L")


def _encoded(image: Image, *, is_jpeg: bool = False, is_frame: bool = False) -> Picture:
    image.info = {}  # texts and profiles of the file have no place in what a model sees
    if not is_jpeg:
        file = io.BytesIO()
        image.save(file, "PNG")
        if file.tell() <= MAX_BYTES:
            return Picture("image/png", file.getvalue(), is_frame)
    for quality in _JPEG_QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= MAX_BYTES:
            break
    return Picture("image/jpeg", file.getvalue(), is_frame)


def _png_size(data: str) -> tuple[int, int]:
    header = _bytes(data, 24)
    if header[12:16] != b"IHDR":
        raise ValueError("no PNG header")
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def _jpeg_size(data: str) -> tuple[int, int]:
    content = _bytes(data, 65_536)
    position = 2
    while content[position] == 0xFF:
        marker = content[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = content[position + 5 : position + 7], content[position + 7 :][:2]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    raise ValueError("no JPEG frame")


def _gif_size(data: str) -> tuple[int, int]:
    header = _bytes(data, 10)
    return int.from_bytes(header[6:8], "little"), int.from_bytes(header[8:10], "little")


def _webp_size(data: str) -> tuple[int, int]:
    header = _bytes(data, 30)
    match header[12:16]:
        case b"VP8X":
            size = header[24:27], header[27:30]
            width, height = (int.from_bytes(side, "little") + 1 for side in size)
        case b"VP8L":
            bits = int.from_bytes(header[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            size = header[26:28], header[28:30]
            width, height = (int.from_bytes(side, "little") & 0x3FFF for side in size)
        case _:
            raise ValueError("no WebP header")
    return width, height


def _svg_size(data: str) -> tuple[int, int]:
    tag = re.search(r"<svg\b[^>]*>", data[:10_000])
    sizes = dict(re.findall(r'\b(width|height)="([\d.]+)', tag[0])) if tag else {}
    if len(sizes) != 2:
        raise ValueError("no size in the SVG")
    return round(float(sizes["width"])), round(float(sizes["height"]))


_SIZES = {
    "image/png": _png_size,
    "image/jpeg": _jpeg_size,
    "image/gif": _gif_size,
    "image/webp": _webp_size,
    "image/svg+xml": _svg_size,
}
FIGURE_MIMES = tuple(_SIZES)
"""MIME types of figures, the best form of one first; the last is text and not an image file."""


def _bytes(data: str, count: int) -> bytes:
    """The first `count` bytes of base64 text, which may be broken into lines."""
    start = "".join(data[: count * 2].split())
    return base64.b64decode(start[: len(start) // 4 * 4])[:count]
