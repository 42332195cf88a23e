"""Images, audio and video in a message, as each provider takes them, or why it takes none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kernel_agent.errors import ModelError
from kernel_agent.model.peers import Peer
from kernel_agent.steps import Message

_ANY_DATA_URL = re.compile(r"data:(image|audio|video)/")
_DATA_URL = re.compile(r"data:((audio|video)/[^;,]+)[^,]*,(.*)", re.DOTALL)
_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "x-flac": "flac"}
_ABILITY = {
    "image": "supports_vision",
    "audio": "supports_audio_input",
    "video": "supports_video_input",
}
_WORDS = {"image": "[figure]", "audio": "[audio]", "video": "[video]"}
_MANY = {"image": "images", "audio": "audio", "video": "video"}


def check_media(name: str, mimes: Iterable[str]) -> None:
    """Find out whether the model `name` takes files of these MIME types.

    Audio and video go only to models that litellm knows to take them, and to Gemini's, of which
    it does not always know. Images are refused only for models that litellm knows to take none:
    one that it does not know (on a server of the user's own) is the user's to judge.

    Raises ModelError for the first kind that is not taken.
    """
    peer = Peer.of(name)
    for mime in mimes:
        kind = mime.partition("/")[0]
        if kind not in _ABILITY:
            raise ModelError(name, f"it takes images, audio and video, and {mime!r} is none.")
        if may_take(peer, kind):
            continue
        reason = f"as far as litellm knows it takes no {_MANY[kind]} ({mime!r} was given)."
        raise ModelError(name, f"{reason} Use a model that does, or leave the file out.")


def may_take(peer: Peer, kind: str) -> bool:
    """Whether files of this kind may go to the model, as `check_media` has it."""
    if peer.info(_ABILITY[kind]):
        return True
    return not peer.is_known if kind == "image" else peer.is_gemini


def fit_part(part: dict[str, Any], peer: Peer) -> dict[str, Any]:
    """A part of a message as the provider takes it.

    Audio and video may come as any part that holds a data URL.
    """
    match part:
        case {"type": "input_audio", "input_audio": {"data": str() as data, "format": kind}}:
            audio = {"data": data, "format": _FORMATS.get(kind, kind)}
            return {"type": "input_audio", "input_audio": audio}
        case {"type": "image_url", "image_url": {"url": str() as url}}:
            pass
        case {"type": "file", "file": {"file_data": str() as url}}:
            pass
        case {"type": "video_url", "video_url": {"url": str() as url}}:
            pass
        case _:
            return part
    found = _DATA_URL.match(url)
    if found is None:
        return part
    mime, kind, data = found.groups()
    if kind == "audio":
        subtype = mime.partition("/")[2]
        audio = {"data": data, "format": _FORMATS.get(subtype, subtype)}
        return {"type": "input_audio", "input_audio": audio}
    if peer.is_gemini:
        return {"type": "file", "file": {"file_data": url}}
    return {"type": "video_url", "video_url": {"url": url}}


def without_media(messages: Sequence[Message], takes: Callable[[str], bool]) -> Sequence[Message]:
    """`messages` with a word in place of each image, audio or video where `takes` says no.

    It is asked for `"image"`, `"audio"` and `"video"`, and only for what is there.
    """
    kinds = {
        kind
        for message in messages
        if isinstance(message.get("content"), list)
        for part in message["content"]
        if (kind := _kind(part))
    }
    unfit = {kind for kind in kinds if not takes(kind)}
    return [_with_words(message, unfit) for message in messages] if unfit else messages


def _with_words(message: Message, unfit: set[str]) -> Message:
    if not isinstance(message.get("content"), list):
        return message
    parts = [
        {"type": "text", "text": _WORDS[kind]} if (kind := _kind(part)) in unfit else part
        for part in message["content"]
    ]
    return {**message, "content": parts}


def _kind(part: Mapping[str, Any]) -> str:
    """What a part of a message is beside text: `"image"`, `"audio"`, `"video"`; else nothing."""
    match part:
        case {"type": "input_audio"}:
            return "audio"
        case {"image_url": {"url": str() as url}}:
            default = "image"
        case {"video_url": {"url": str() as url}}:
            default = "video"
        case {"file": {"file_data": str() as url}}:
            default = ""
        case _:
            return ""
    found = _ANY_DATA_URL.match(url)
    return found[1] if found else default
