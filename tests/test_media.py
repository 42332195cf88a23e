"""What the user gives the model to look at and listen to."""

from __future__ import annotations

import base64
import io
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kernel_agent.errors import DataError
from kernel_agent.media import MAX_BYTES, media
from kernel_agent.steps import Task, user_message

RED = Image.new("RGB", (60, 40), "red")


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def url(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def decoded(data_url: str) -> Image.Image:
    content = base64.b64decode(data_url.partition(",")[2])
    return Image.open(io.BytesIO(content)).convert("RGB")


def sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(100))
    return file.getvalue()


def boxed(brand: bytes) -> bytes:
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mp42isom" + bytes(40)


PNG, WAV, MP4 = encoded(RED), sound(), boxed(b"isom")
MATROSKA = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82"

AUDIO = {
    "audio/wav": WAV,
    "audio/mpeg": b"ID3\x04" + bytes(40),
    "audio/flac": b"fLaC" + bytes(40),
    "audio/ogg": b"OggS" + bytes(24) + b"OpusHead" + bytes(20),
    "audio/aac": b"\xff\xf1\x50\x80" + bytes(40),
    "audio/aiff": b"FORM" + struct.pack(">I", 46) + b"AIFF" + bytes(40),
    "audio/mp4": boxed(b"M4A "),
}
VIDEO = {
    "video/mp4": MP4,
    "video/quicktime": boxed(b"qt  "),
    "video/3gpp": boxed(b"3gp5"),
    "video/webm": MATROSKA + b"\x84webm" + bytes(40),
    "video/x-matroska": MATROSKA + b"\x88matroska" + bytes(40),
    "video/avi": b"RIFF" + struct.pack("<I", 44) + b"AVI " + bytes(40),
    "video/mpeg": b"\0\0\x01\xba" + bytes(40),
    "video/ogg": b"OggS" + bytes(24) + b"\x80theora" + bytes(20),
}


@pytest.mark.parametrize("mime", AUDIO)
def test_what_an_audio_file_is_its_content_says(mime: str, tmp_path: Path) -> None:
    file = tmp_path / "recording.mp4"
    file.write_bytes(AUDIO[mime])
    assert media(audio=[file]) == (url(mime, AUDIO[mime]),)


@pytest.mark.parametrize("head", [b"\xff\xfb\x90", b"\xff\xf3\x40", b"\xff\xfa\x90"])
def test_mp3_may_begin_with_its_first_frame(head: bytes) -> None:
    assert media(audio=[head + bytes(40)])[0].startswith("data:audio/mpeg;")


@pytest.mark.parametrize("mime", VIDEO)
def test_what_a_video_file_is_its_content_says(mime: str) -> None:
    assert media(video=[VIDEO[mime]]) == (url(mime, VIDEO[mime]),)


@pytest.mark.parametrize("form", ["mp4", "webm"])
def test_a_container_that_may_hold_either_is_what_the_user_says(form: str) -> None:
    content = VIDEO[f"video/{form}"]
    assert media(audio=[content]) == (url(f"audio/{form}", content),)


def test_an_image_may_be_given_in_many_forms(tmp_path: Path) -> None:
    file = tmp_path / "red.dat"
    file.write_bytes(PNG)
    assert media([file, str(file), PNG, bytearray(PNG), url("image/png", PNG)]) == (
        (url("image/png", PNG),) * 5
    )


def test_images_come_first_then_audio_then_video() -> None:
    kinds = [one[5:10] for one in media([PNG], audio=[WAV], video=[MP4])]
    assert kinds == ["image", "audio", "video"]


@pytest.mark.parametrize(
    "array",
    [
        np.full((40, 60, 3), (255, 0, 0), np.uint8),
        np.full((40, 60, 3), (1.0, 0.0, 0.0)),
        np.full((40, 60, 4), (1, 0, 0, 1), np.float32),
        np.full((40, 60, 3), (True, False, False)),
    ],
    ids=["uint8", "float", "with opacity", "bool"],
)
def test_an_array_of_pixels_is_an_image(array: Any) -> None:
    image = decoded(*media([array]))
    assert (image.size, image.getpixel((5, 5))) == ((60, 40), (255, 0, 0))


def test_an_array_of_shades_is_a_grey_image() -> None:
    assert decoded(*media([np.full((9, 9), 0.5)])).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I", "F"])
def test_an_image_of_pillow_s_is_one_in_any_mode(mode: str) -> None:
    assert decoded(*media([Image.new(mode, (2000, 1000))])).size == (1024, 512)


def test_a_figure_of_matplotlib_s_is_an_image() -> None:
    from matplotlib.figure import Figure

    assert decoded(*media([Figure(figsize=(20, 10))])).size == (1024, 512)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no file": ({"images": ["nosuch.png"]}, "'nosuch.png': there is no such file"),
    "a folder": ({"images": ["."]}, "'.': it is a folder"),
    "an address": ({"images": ["https://a.org/b.png"]}, "nothing is fetched.*Download it"),
    "one path": ({"images": "red.png"}, r"'images': it is one str; give a list: images=\[…\]"),
    "one image": ({"images": RED}, "give a list"),
    "one array": ({"images": np.zeros((9, 9, 3))}, "it is one ndarray; give a list"),
    "no image": ({"images": [b"hello"]}, "'image 1': it is no image that can be read. It must be"),
    "half an image": ({"images": [PNG, PNG[:70]]}, "'image 2': it is damaged"),
    "a sound as an image": ({"images": [WAV]}, r"it is audio/wav, no image. Give it as audio=\[…"),
    "an image as a sound": ({"audio": [PNG]}, "no audio known here. It must be a WAV"),
    "text as a sound": ({"audio": [b"hello"]}, "'audio 1': its content is that of no audio"),
    "an empty file": ({"video": [b""]}, "no video known here"),
    "a film as a sound": ({"audio": [VIDEO["video/avi"]]}, r"video/avi, no audio.*video=\[…\]"),
    "a photo as a film": ({"video": [boxed(b"heic")]}, "no video known here"),
    "a broken data URL": ({"images": ["data:image/png;base64,%%%"]}, "A data URL begins like"),
    "no base64": ({"images": ["data:image/png,abc"]}, "no data URL in base64"),
    "another object": ({"images": [3]}, "of type int, no image. Allowed: a path"),
    "another object as sound": ({"audio": [3]}, "of type int, no audio"),
    "a line of pixels": ({"images": [np.zeros(5)]}, "an array of 5 is no image"),
    "many channels": ({"images": [np.zeros((5, 5, 7))]}, "5×5×7 is no image"),
    "large numbers": ({"images": [np.full((5, 5), 300.0)]}, "floats from 0 to 1"),
    "whole numbers": ({"images": [np.zeros((5, 5), int)]}, "uint8, bool, or floats"),
    "a large file": ({"audio": [WAV + bytes(MAX_BYTES)]}, "at most 20,000,000 can be sent"),
    "much together": ({"audio": [WAV + bytes(MAX_BYTES // 2)] * 2}, "together they have about"),
    "a name that cannot be": ({"images": ["a\0b"]}, "cannot be read"),
}


@pytest.mark.parametrize(("given", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_sent_is_refused_with_the_reason(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        media(**given)


def test_a_large_file_is_not_even_read(tmp_path: Path) -> None:
    file = tmp_path / "film.mp4"
    with file.open("wb") as out:
        out.truncate(10**12)  # nothing on disk has that size
    with pytest.raises(DataError, match="1,000,000,000,000 bytes"):
        media(video=[file])


def test_each_kind_is_a_part_of_the_message_of_its_own() -> None:
    urls = media([PNG], audio=[WAV, AUDIO["audio/mpeg"]], video=[MP4])
    (message,) = Task("t", "Look.", urls).messages()
    assert message["content"] == [
        {"type": "text", "text": "Look."},
        {"type": "image_url", "image_url": {"url": urls[0]}},
        {
            "type": "input_audio",
            "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"},
        },
        {
            "type": "input_audio",
            "input_audio": {"data": urls[2].partition(",")[2], "format": "mp3"},
        },
        {"type": "file", "file": {"file_data": urls[3]}},
    ]
    assert user_message("Look.") == {"role": "user", "content": "Look."}
