"""The media of a task in the notebook: seen in its cell, stored once, and back word for word."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

from kernel_agent.exporting import export
from kernel_agent.steps import CellResult, Observation, Outcome, Reply, Step, Task
from kernel_agent.transcript import Transcript

WAV = "data:audio/wav;base64,UklGRiQAAABXQVZF"
MP4 = "data:video/mp4;base64,AAAAGGZ0eXBpc29t"
ODD = ("odd", "data:image/svg+xml;base64,PHN2Zy8+", "data:image/png;base64,", "data:a/b;base64,AA")


def image_url(colour: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


RED, BLUE = image_url("red"), image_url("blue")


def saved(path: Path, *urls: str, thought: str = "I look.") -> Transcript:
    transcript = Transcript("s", path=path)
    transcript.add(Task("What is this?", "What is this?", urls))
    ran = CellResult("1 + 1", execution_count=1)
    transcript.add(Step(Reply("r"), "r", thought, ran, Observation("o")))
    transcript.add(Step(Reply("Red."), "Red.", "Red."))
    transcript.finish(Outcome("answered"))
    return transcript


def task_cell(path: Path) -> Any:
    return nbformat.read(path, 4).cells[0]


def test_an_image_of_the_task_is_shown_in_its_cell_and_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = saved(path, RED, BLUE, RED)
    cell = task_cell(path)
    assert cell.source == (
        "# What is this?\n\n![image-1.png](attachment:image-1.png)\n\n"
        "![image-2.png](attachment:image-2.png)"
    )
    assert cell.attachments["image-1.png"] == {"image/png": RED.partition(",")[2]}
    text = path.read_text(encoding="utf-8")
    assert text.count(RED.partition(",")[2]) == text.count(BLUE.partition(",")[2]) == 1
    nbformat.validate(nbformat.reads(text, 4))
    assert nbformat.writes(nbformat.reads(text, 4)) + "\n" == text
    assert Transcript.load(path).entries == transcript.entries


def test_audio_and_video_are_links_to_what_is_attached(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = saved(path, RED, WAV, MP4)
    assert task_cell(path).source.endswith(
        "[audio-1.wav](attachment:audio-1.wav)\n\n[video-1.mp4](attachment:video-1.mp4)"
    )
    assert Transcript.load(path).entries == transcript.entries
    assert Transcript.load(path).messages() == transcript.messages()


def test_what_cannot_be_attached_comes_back_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = saved(path, ODD[0], RED, *ODD[1:])
    assert Transcript.load(path).entries == transcript.entries
    assert list(task_cell(path).attachments) == ["image-1.png"]


def test_attachments_that_a_program_wrote_in_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = saved(path, RED)
    document = json.loads(path.read_bytes())
    data = document["cells"][0]["attachments"]["image-1.png"]
    data["image/png"] = [data["image/png"][:8] + "\n", data["image/png"][8:]]
    path.write_text(json.dumps(document))
    assert Transcript.load(path).entries == transcript.entries


DAMAGE: dict[str, Callable[[Any], object]] = {
    "none": lambda cell: cell.pop("attachments"),
    "no object": lambda cell: cell.update(attachments=["a"]),
    "another name": lambda cell: cell.update(attachments={"x.png": {"image/png": "AAAA"}}),
    "an empty bundle": lambda cell: cell["attachments"].update({"image-1.png": {}}),
    "no bundle": lambda cell: cell["attachments"].update({"image-1.png": 3}),
    "no base64": lambda cell: cell["attachments"]["image-1.png"].update({"image/png": "%%"}),
    "no text": lambda cell: cell["attachments"]["image-1.png"].update({"image/png": 3}),
    "no image": lambda cell: cell["attachments"].update({"image-1.png": {"text/html": "AAAA"}}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_an_attachment_that_is_gone_or_damaged_is_named(
    tmp_path: Path, damage: Callable[[Any], object]
) -> None:
    path = tmp_path / "run.ipynb"
    saved(path, RED, WAV)
    document = json.loads(path.read_bytes())
    damage(document["cells"][0])
    path.write_text(json.dumps(document))
    loaded = Transcript.load(path)
    assert "task-1: its attachment 'image-1.png' is not there" in str(loaded.problems[0])
    assert loaded.tasks[0].text == "What is this?"
    assert RED not in loaded.tasks[0].images


def test_what_is_no_image_in_a_task_s_metadata_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    saved(path, RED)
    document = json.loads(path.read_bytes())
    document["cells"][0]["metadata"]["kernel_agent"]["images"].append(3)
    path.write_text(json.dumps(document))
    loaded = Transcript.load(path)
    assert loaded.tasks[0].images == (RED,)
    assert "an image of it is of type int" in str(loaded.problems[0])


def test_a_run_saved_with_its_images_in_the_metadata_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    transcript = saved(path, RED)
    document = json.loads(path.read_bytes())
    document["cells"][0].pop("attachments")
    document["cells"][0]["metadata"]["kernel_agent"]["images"] = [RED]
    path.write_text(json.dumps(document))
    assert Transcript.load(path).entries == transcript.entries


def test_markdown_has_what_is_attached_as_files(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    saved(path, RED, WAV)
    text = export(path, "markdown").read_text()
    assert "![image-1.png](run_files/attachment-1.png)" in text
    assert "[audio-1.wav](run_files/attachment-2.wav)" in text
    image = (tmp_path / "run_files" / "attachment-1.png").read_bytes()
    assert base64.b64encode(image).decode() == RED.partition(",")[2]


def test_a_script_names_what_is_attached(tmp_path: Path) -> None:
    saved(tmp_path / "run.ipynb", RED)
    text = export(tmp_path / "run.ipynb", "script").read_text()
    assert "# ![image-1.png](attachment:image-1.png)" in text


@pytest.mark.slow
def test_a_page_has_the_images_in_it_and_survives_those_that_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "run.ipynb"
    saved(path, RED, WAV, thought="![x](attachment:nosuch.png) and ![y](attachment:no%20such)")
    page = export(path, "html").read_text()
    assert f'<img alt="image-1.png" src="{RED}"' in page
    assert 'alt="x"' in page


@pytest.mark.slow
def test_a_clean_notebook_keeps_what_is_attached(tmp_path: Path) -> None:
    saved(tmp_path / "run.ipynb", RED)
    notebook = nbformat.read(export(tmp_path / "run.ipynb", "clean"), 4)
    nbformat.validate(notebook)
    assert notebook.cells[0].attachments == {"image-1.png": {"image/png": RED.partition(",")[2]}}
