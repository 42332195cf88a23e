"""What the user gives the model to look at and listen to: files and values become data URLs."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from kernel_agent.errors import DataError
from kernel_agent.pictures import UnfitPictureError, data_url, from_pixels, picture

MAX_BYTES = 20_000_000
"""Most bytes of one file, and of all that goes with a task: more than that providers refuse."""

Kind = Literal["image", "audio", "video"]

_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[^;,]*)*;base64,(.*)", re.S)
_WANTED = {
    "image": "a PNG, JPEG, GIF, WebP, BMP or TIFF",
    "audio": "a WAV, MP3, FLAC, OGG, AAC, AIFF or M4A",
    "video": "an MP4, MOV, WebM, MKV, AVI or MPEG",
}
_IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")


def media(
    images: Iterable[Any] = (), *, audio: Iterable[Any] = (), video: Iterable[Any] = ()
) -> tuple[str, ...]:
    """The data URLs of what goes with a task: the images, then the audio, then the video.

    Each is a path, the bytes of a file, or a data URL; an image may also be a Pillow image, a
    matplotlib figure, or a numpy array (height × width, with 3 or 4 channels if any; uint8, bool,
    or floats from 0 to 1). What a file is, its content says and not its name. Images are made fit
    (see `pictures.picture`); the rest is sent as it is. Nothing is fetched from the network.

    Raises DataError for a file that is not there, that is something else, or that is too large.
    """
    urls = (*_urls("image", images), *_urls("audio", audio), *_urls("video", video))
    size = sum(len(url) * 3 // 4 for url in urls)
    if size > MAX_BYTES:
        reason = f"together they have about {size:,} bytes; at most {MAX_BYTES:,} can be sent."
        raise DataError("images, audio, video", reason)
    return urls


def _urls(kind: Kind, items: Iterable[Any]) -> Iterator[str]:
    option = "images" if kind == "image" else kind
    is_one = isinstance(items, str | bytes | bytearray | Path) or hasattr(items, "shape")
    if is_one or not isinstance(items, Iterable):
        raise DataError(option, f"it is one {type(items).__name__}; give a list: {option}=[…].")
    for number, item in enumerate(items, 1):
        name = f"{kind} {number}"
        match item:
            case str() if re.match(r"https?://", item, re.I):
                reason = "nothing is fetched from the network. Download it and give the file."
                raise DataError(item, reason)
            case str() if item.startswith("data:"):
                yield _fit(kind, name, _decoded(name, item))
            case str() | Path():
                yield _fit(kind, str(item), _read(Path(item)))
            case bytes() | bytearray() | memoryview():
                yield _fit(kind, name, bytes(item))
            case _ if kind == "image":
                yield _drawn(name, item)
            case _:
                reason = f"it is a value of type {type(item).__name__}, no {kind}."
                raise DataError(name, f"{reason} Give a path or a file's bytes.")


def _fit(kind: Kind, name: str, content: bytes) -> str:
    """The content of a file as a data URL, if it is of that kind."""
    _check_size(name, len(content))
    found = _sniffed(content)
    if kind == "image":
        if found:
            raise DataError(name, f"it is {found}, no image. Give it as {_option(found)}.")
        try:
            return picture(content).url
        except UnfitPictureError as error:
            raise DataError(name, f"{error}. It must be {_WANTED[kind]} file.") from error
    if found.startswith(kind):
        return data_url(found, content)
    # A container says what it is, but not always whether there is a picture in it.
    _, _, form = found.partition("/")
    if form in ("mp4", "webm", "ogg"):
        return data_url(f"{kind}/{form}", content)
    what = f"it is {found}, no {kind}" if found else f"its content is that of no {kind} known here"
    hint = f" Give it as {_option(found)}." if found else ""
    raise DataError(name, f"{what}. It must be {_WANTED[kind]} file.{hint}")


def _option(mime: str) -> str:
    return f"{mime.partition('/')[0]}=[…]"


def _read(path: Path) -> bytes:
    try:
        _check_size(str(path), path.stat().st_size)
        return path.read_bytes()
    except IsADirectoryError:
        why = "it is a folder"
    except FileNotFoundError:
        why = "there is no such file"
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = f"it cannot be read ({error.strerror if isinstance(error, OSError) else error})"
    raise DataError(str(path), f"{why}. The path is relative to {str(Path.cwd())!r}.")


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(name, f"it has {size:,} bytes; at most {MAX_BYTES:,} can be sent.")


def _decoded(name: str, url: str) -> bytes:
    found = _DATA_URL.fullmatch(url)
    try:
        if found is None:
            raise ValueError("it is no data URL in base64")
        return base64.b64decode("".join(found[1].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = f"{error}. A data URL begins like data:image/png;base64,"
        raise DataError(name, reason) from error


def _drawn(name: str, value: Any) -> str:
    """An image that a library holds."""
    for kind in type(value).__mro__:
        library = kind.__module__.partition(".")[0]
        if draw := _DRAWN.get((library, kind.__name__)):
            try:
                return draw(value)
            except UnfitPictureError as error:
                raise DataError(name, f"{error}.") from error
    raise DataError(
        name,
        f"it is a value of type {type(value).__name__}, no image. Allowed: a path, bytes, a data "
        "URL, a Pillow image, a matplotlib figure, a numpy array.",
    )


def _from_figure(figure: Any) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return picture(file.getvalue()).url


def _from_array(array: Any) -> str:
    from PIL import Image  # noqa: PLC0415 - as late as in `pictures`

    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        shape = "×".join(map(str, array.shape)) or "one number"
        raise UnfitPictureError(f"an array of {shape} is no image: height×width, ×3 or ×4")
    if array.size > 4 * MAX_BYTES:
        raise UnfitPictureError(f"an array of {array.size:,} values is too large")
    match array.dtype.kind:
        case "b":
            array = array * 255
        case "f" if array.size and 0 <= array.min() <= array.max() <= 1:
            array = (array * 255).round()
        case "u" if array.dtype.itemsize == 1:
            pass
        case _:
            what = f"an array of {array.dtype} is no image"
            raise UnfitPictureError(f"{what}: uint8, bool, or floats from 0 to 1")
    return from_pixels(Image.fromarray(array.astype("uint8"))).url


_DRAWN: dict[tuple[str, str], Callable[[Any], str]] = {
    ("PIL", "Image"): lambda image: from_pixels(image).url,
    ("matplotlib", "Figure"): _from_figure,
    ("numpy", "ndarray"): _from_array,
}


def _sniffed(content: bytes) -> str:
    """The MIME type of an audio or video file by its first bytes; empty for anything else."""
    for start, mime in _STARTS:
        if content.startswith(start):
            return mime
    match content[:4], content[8:12]:
        case b"RIFF", b"WAVE":
            return "audio/wav"
        case b"RIFF", b"AVI ":
            return "video/avi"
        case b"FORM", b"AIFF" | b"AIFC":
            return "audio/aiff"
        case b"OggS", _:
            return "video/ogg" if b"theora" in content[:200] else "audio/ogg"
        case b"\x1aE\xdf\xa3", _:  # Matroska, of which WebM is a part
            return "video/webm" if b"webm" in content[:64] else "video/x-matroska"
    if content[4:8] == b"ftyp" and content[8:12] not in _IMAGE_BRANDS:
        brand = content[8:12]
        return _BRANDS.get(brand[:3], "video/mp4")
    return _sniffed_frame(content[:2])


def _sniffed_frame(head: bytes) -> str:
    """MPEG audio without anything before its first frame, which begins with eleven ones."""
    if len(head) < 2 or head[0] != 0xFF:
        return ""
    if head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    return "audio/mpeg" if head[1] & 0xE6 == 0xE2 and head[1] & 0x18 != 0x08 else ""


_STARTS = (
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"\0\0\x01\xba", "video/mpeg"),
    (b"\0\0\x01\xb3", "video/mpeg"),
    (b"FLV\x01", "video/x-flv"),
)
_BRANDS = {
    b"M4A": "audio/mp4",
    b"M4B": "audio/mp4",
    b"qt ": "video/quicktime",
    b"3gp": "video/3gpp",
}
