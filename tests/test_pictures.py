"""Images as a model is sent them."""

from __future__ import annotations

import base64
import io
import random
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from kernel_agent.pictures import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SIDE,
    UnfitPictureError,
    header_size,
    picture,
)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def pixels(content: bytes) -> Image.Image:
    """What is seen of a file, decoded."""
    with Image.open(io.BytesIO(picture(content).content)) as image:
        return image.convert("RGB")


def claiming(width: int, height: int) -> bytes:
    """A small PNG that says it has that many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


RED = Image.new("RGB", (60, 40), "red")
BLUE = Image.new("RGB", (60, 40), "blue")
NOISE = Image.frombytes("RGB", (1000, 1000), random.Random(0).randbytes(3_000_000))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_png_that_fits_stays_what_it_is(mode: str) -> None:
    content = encoded(Image.new(mode, (MAX_SIDE, 20)))
    assert picture(content).content == content
    assert picture(content).mime == "image/png"


def test_a_jpeg_that_fits_stays_what_it_is() -> None:
    content = encoded(RED, "JPEG")
    assert picture(content).url == "data:image/jpeg;base64," + base64.b64encode(content).decode()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_larger_png_is_scaled_and_stays_a_png(mode: str) -> None:
    found = picture(encoded(Image.new(mode, (3000, 1500))))
    assert found.mime == "image/png"
    with Image.open(io.BytesIO(found.content)) as image:
        assert (image.format, image.size) == ("PNG", (MAX_SIDE, 512))


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1)])
def test_the_thinnest_image_keeps_a_pixel(size: tuple[int, int]) -> None:
    assert sorted(pixels(encoded(Image.new("RGB", size))).size) == [1, MAX_SIDE]


def test_a_larger_jpeg_stays_a_jpeg() -> None:
    assert picture(encoded(RED.resize((2048, 2048)), "JPEG")).mime == "image/jpeg"


def test_the_same_image_gives_the_same_bytes() -> None:
    content = encoded(NOISE.resize((1500, 900)))
    assert picture(content) == picture(content)


def test_what_was_there_is_seen_after_scaling() -> None:
    halves = Image.new("RGB", (3000, 3000), "red")
    halves.paste("blue", (1500, 0, 3000, 3000))
    seen = pixels(encoded(halves))
    assert (seen.getpixel((100, 500)), seen.getpixel((900, 500))) == ((255, 0, 0), (0, 0, 255))


def test_what_is_transparent_is_white_once_it_is_scaled() -> None:
    seen = pixels(encoded(Image.new("RGBA", (3000, 3000), (0, 0, 0, 0))))
    assert seen.getpixel((9, 9)) == (255, 255, 255)


def test_a_deep_image_has_its_darkest_shade_black_and_its_lightest_white() -> None:
    deep = Image.new("I;16", (2, 1), 1000)
    deep.putpixel((1, 0), 1300)
    seen = pixels(encoded(deep))
    assert [seen.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_image_that_a_camera_took_sideways_is_turned(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert pixels(encoded(RED, form, exif=exif)).size == (40, 60)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "BMP", "TIFF"])
def test_forms_that_not_every_provider_takes_become_png(form: str) -> None:
    found = picture(encoded(RED, form))
    assert (found.mime, found.is_frame) == ("image/png", False)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_image_that_moves_the_first_frame_is_taken(form: str) -> None:
    content = encoded(RED, form, save_all=True, append_images=[BLUE])
    red, _, blue = pixels(content).getpixel((5, 5))
    assert (red, blue < 5, picture(content).is_frame) == (255, True, True)


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("JPEG", {"quality": 100})])
def test_an_image_of_many_bytes_becomes_a_jpeg_of_few(form: str, options: dict[str, int]) -> None:
    content = encoded(NOISE, form, **options)
    assert len(content) > MAX_BYTES
    found = picture(content)
    assert (found.mime, len(found.content) <= MAX_BYTES) == ("image/jpeg", True)


def test_an_image_is_called_what_it_is_and_not_what_its_mime_type_says() -> None:
    assert picture(encoded(RED, "JPEG")).mime == "image/jpeg"


@pytest.mark.parametrize("side", [MAX_PIXELS, 20_000])
def test_an_image_that_would_fill_the_memory_is_refused(side: int) -> None:
    with pytest.raises(UnfitPictureError, match="has more than 40,000,000 pixels"):
        picture(claiming(side, side))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image"),
        (b"<svg/>", "no image"),
        (encoded(NOISE)[:9000], "damaged"),
        (encoded(NOISE, "JPEG")[:9000], "damaged"),
        (claiming(100, 100), "damaged"),
        (claiming(0, 10), "no image|damaged|no pixels"),
    ],
    ids=["empty", "SVG", "half a PNG", "half a JPEG", "too few pixels", "no pixels"],
)
def test_what_cannot_be_decoded_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(UnfitPictureError, match=reason):
        picture(content)


def test_however_a_file_is_damaged_it_is_refused_or_decoded() -> None:
    chance = random.Random(1)
    moving = encoded(RED, "GIF", save_all=True, append_images=[BLUE])
    small = NOISE.resize((40, 40))
    files = [moving, encoded(small), *(encoded(small, form) for form in ("JPEG", "WEBP", "BMP"))]
    refused = 0
    for number in range(300):
        content = bytearray(files[number % len(files)])
        for _ in range(4):
            content[chance.randrange(min(len(content), 300))] = chance.randrange(256)
        try:
            found = picture(bytes(content))
        except UnfitPictureError:
            refused += 1
            continue
        with Image.open(io.BytesIO(found.content)) as image:
            image.load()
    assert 0 < refused < 300


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"save_all": True}])
def test_the_size_of_a_webp_comes_from_its_header(options: dict[str, bool]) -> None:
    more = {"append_images": [BLUE]} if "save_all" in options else {}
    data = base64.b64encode(encoded(RED, "WEBP", **options, **more)).decode()
    assert header_size("image/webp", data) == (60, 40)
