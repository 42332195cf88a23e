"""Figures and files on their way from a cell or the user to a model, over HTTP."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from kernel_agent import Agent
from kernel_agent.media import media
from kernel_agent.model import LiteLLM
from kernel_agent.pictures import MAX_SIDE
from kernel_agent.steps import Task
from kernel_agent.transcript import Transcript
from tests.openai_server import OpenAIServer

DRAW = """\
I draw.

```python
import matplotlib.pyplot as plt

for number, size in enumerate([(2, 1), (3, 2), (15, 12), (3, 3), (4, 3)]):
    plt.figure(figsize=size)
    plt.plot([number, 1])
    plt.show()
```"""
LOOK = "```python\nprint('I see.')\n```"


def parts(message: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    content = message["content"]
    return [part for part in content if part["type"] == kind] if isinstance(content, list) else []


def image_of(part: dict[str, Any]) -> Image.Image:
    content = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    return Image.open(io.BytesIO(content))


def run(model: str, tmp_path: Path) -> list[list[dict[str, Any]]]:
    """The messages of each request of a run that draws five figures."""
    with (
        OpenAIServer([DRAW, LOOK, "Five lines."]) as server,
        Agent(LiteLLM(model, api_base=server.url, api_key="sk-test")) as agent,
    ):
        done = agent.run("Draw.", out=tmp_path / "run.ipynb")
        assert done.answer == "Five lines."
        assert Transcript.load(tmp_path / "run.ipynb").entries == done.transcript.entries
        return [request.body["messages"] for request in server.requests]


def test_figures_go_once_to_a_model_that_takes_images(tmp_path: Path) -> None:
    _, second, third = run("openai/gpt-4o", tmp_path)
    assert third[: len(second)] == second
    text = second[-1]["content"][0]["text"]
    assert text.count(", attached]") == 4
    assert "[figure 1" in text and "not attached: only the last 4 are]" in text.splitlines()[0]
    images = [image_of(part) for message in third for part in parts(message, "image_url")]
    assert len(images) == 4
    assert [max(image.size) == MAX_SIDE for image in images] == [False, True, False, False]


def test_a_model_that_takes_no_images_is_told_the_figures_sizes(tmp_path: Path) -> None:
    *_, third = run("openai/unknown", tmp_path)
    assert all(isinstance(message["content"], str) for message in third)
    text = next(message["content"] for message in third if "[figure" in message["content"])
    assert text.count("[figure ") == 5 and "attached" not in text


def test_the_images_of_a_task_arrive_once_and_scaled(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1500), "red").save(tmp_path / "red.png")
    transcript = Transcript("Look.")
    transcript.add(Task("What is it?", "What is it?", media([tmp_path / "red.png"])))
    with OpenAIServer(["Red."]) as server:
        model = LiteLLM("openai/gpt-4o", api_base=server.url, api_key="sk-test")
        model.complete(transcript.messages())
        (part,) = parts(server.requests[0].body["messages"][-1], "image_url")
    assert image_of(part).size == (MAX_SIDE, 512)


def test_the_sound_of_a_task_arrives_as_the_api_wants_it() -> None:
    wav = b"RIFF\x24\0\0\0WAVEfmt " + bytes(40)
    transcript = Transcript("Listen.")
    transcript.add(Task("What is it?", "What is it?", media(audio=[wav])))
    with OpenAIServer(["Silence."]) as server:
        model = LiteLLM("openai/gpt-4o-audio-preview", api_base=server.url, api_key="sk-test")
        model.complete(transcript.messages())
        (part,) = parts(server.requests[0].body["messages"][-1], "input_audio")
    assert part["input_audio"] == {"data": base64.b64encode(wav).decode(), "format": "wav"}
