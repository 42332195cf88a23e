"""What the model is shown of a cell."""

from __future__ import annotations

import base64
import io
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kernel_agent.observation import figure_size, observe, output_text
from kernel_agent.pictures import MAX_IMAGES
from kernel_agent.steps import ANSWER_MIME, CellResult, Observation, Output
from kernel_agent.terminal import plain_text
from kernel_agent.tracebacks import error_text
from tests.examples import examples


def stream(text: str, name: str = "stdout") -> Output:
    return {"output_type": "stream", "name": name, "text": text}


def display(**data: object) -> Output:
    mimes = {name.replace("__", "/"): value for name, value in data.items()}
    return {"output_type": "display_data", "data": mimes, "metadata": {}}


def error(ename: str, evalue: str, *traceback: str) -> Output:
    return {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": list(traceback)}


def shown(*outputs: Output, max_chars: int = 8000, **fields: object) -> str:
    result = CellResult("", outputs=outputs, **fields)  # type: ignore[arg-type]
    return observe(result, max_chars=max_chars).text


RULE = "\x1b[31m---------------------------------------------------------------------------\x1b[39m"
KEY_ERROR = error(
    "KeyError",
    "'precip'",
    RULE,
    "\x1b[31mKeyError\x1b[39m                                  Traceback (most recent call last)",
    "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[1]\x1b[39m\x1b[32m, line 2\x1b[39m\n"
    "\x1b[32m      1\x1b[39m d={\x1b[33m'a'\x1b[39m:\x1b[32m1\x1b[39m}\n"
    "\x1b[32m----> \x1b[39m\x1b[32m2\x1b[39m d[\x1b[33m'precip'\x1b[39m]\n",
    "\x1b[31mKeyError\x1b[39m: 'precip'",
)
LIBRARY_FRAME = (
    "\x1b[36mFile \x1b[39m\x1b[32m/usr/lib/python3.11/site-packages/pandas/core/base.py:3823"
    "\x1b[39m, in \x1b[36mIndex.get_loc\x1b[39m\x1b[34m(self, key)\x1b[39m\n"
    "\x1b[32m   3822\x1b[39m         \x1b[38;5;28;01mraise\x1b[39;00m InvalidIndexError(key)\n"
    "\x1b[32m-> \x1b[39m\x1b[32m3823\x1b[39m     \x1b[38;5;28;01mraise\x1b[39;00m KeyError(key)\n"
)
COMPILED_FRAME = (
    "\x1b[36mFile \x1b[39m\x1b[32mpandas/_libs/index.pyx:172\x1b[39m, in "
    "\x1b[36mpandas._libs.index.IndexEngine.get_loc\x1b[39m\x1b[34m()\x1b[39m\n"
    "\x1b[32m--> \x1b[39m\x1b[32m172\x1b[39m \x1b[33m'Could not get source'\x1b[39m\n"
)
CAUSE = "\nThe above exception was the direct cause of the following exception:\n"
USER_FRAME = (
    "\x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[2]\x1b[39m\x1b[32m, line {line}\x1b[39m, in "
    "\x1b[36m{name}\x1b[39m\x1b[34m(n)\x1b[39m\n"
    "\x1b[32m----> \x1b[39m\x1b[32m{line}\x1b[39m     \x1b[38;5;28;01mreturn\x1b[39;00m g(n)\n"
)
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/usr/lib/python3.11/site-packages/IPython/core/interactiveshell.py", line 3823, in run
  |     exec(code_obj, self.user_global_ns, self.user_ns)
  |   File "/tmp/ipykernel_6079/3989494901.py", line 3, in <module>
  |     f()
  | ExceptionGroup: many (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/tmp/ipykernel_6079/1143702352.py", line 2, in a
    |     async def a(): 1/0
    |                    ~^~
    | ZeroDivisionError: division by zero
    +---------------- 2 ----------------
    | ExceptionGroup: inner (1 sub-exception)
    +-+---------------- 1 ----------------
      | FileNotFoundError: [Errno 2] no
      +------------------------------------
"""

ERRORS = {
    "the user's frame and line": (
        KEY_ERROR,
        "Cell In[1], line 2\n    d['precip']\nKeyError: 'precip'",
    ),
    "library frames as a count": (
        error(
            "KeyError",
            "'b'",
            *KEY_ERROR["traceback"][:3],
            LIBRARY_FRAME,
            COMPILED_FRAME,
            "KeyError: 'b'",
        ),
        "Cell In[1], line 2\n    d['precip']\n(2 library frames left out, the innermost: "
        "pandas/_libs/index.pyx:172 in pandas._libs.index.IndexEngine.get_loc)\nKeyError: 'b'",
    ),
    "a cause as a line": (
        error(
            "ValueError",
            "bad",
            *KEY_ERROR["traceback"],
            CAUSE,
            *KEY_ERROR["traceback"][:3],
            "ValueError: bad",
        ),
        "Cell In[1], line 2\n    d['precip']\nValueError: bad\ncaused by KeyError: 'precip'",
    ),
    "a cause that says the same not at all": (
        error(
            "KeyError",
            "'precip'",
            COMPILED_FRAME,
            "KeyError: 'precip'",
            CAUSE,
            *KEY_ERROR["traceback"],
        ),
        "Cell In[1], line 2\n    d['precip']\nKeyError: 'precip'",
    ),
    "a recursion as a count": (
        error(
            "RecursionError",
            "too deep",
            *[USER_FRAME.format(line=2, name="f")] * 970,
            "RecursionError: too deep",
        ),
        "Cell In[2], line 2 in f\n    return g(n)\n… the last frame repeated 969 more times …\n"
        "RecursionError: too deep",
    ),
    "a recursion of two as a count": (
        error(
            "RecursionError",
            "too deep",
            *[USER_FRAME.format(line=2, name="f"), USER_FRAME.format(line=4, name="g")] * 486,
            "RecursionError: too deep",
        ),
        "Cell In[2], line 2 in f\n    return g(n)\nCell In[2], line 4 in g\n    return g(n)\n"
        "… the last 2 frames repeated 485 more times …\nRecursionError: too deep",
    ),
    "a syntax error's line and caret": (
        error(
            "SyntaxError",
            "expected ':' (3521570167.py, line 1)",
            "  \x1b[36mCell\x1b[39m\x1b[36m \x1b[39m\x1b[32mIn[5]\x1b[39m\x1b[32m, line 1\x1b[39m\n"
            "\x1b[31m    \x1b[39m\x1b[31mfor i in range(3)\x1b[39m\n                     ^\n"
            "\x1b[31mSyntaxError\x1b[39m\x1b[31m:\x1b[39m expected ':'\n",
        ),
        "Cell In[5], line 1\n    for i in range(3)\n                     ^\n"
        "SyntaxError: expected ':'",
    ),
    "a syntax error in a string with the frame that ran it": (
        error(
            "SyntaxError",
            "invalid syntax (<string>, line 1)",
            "Traceback \x1b[36m(most recent call last)\x1b[39m:\n",
            "  File \x1b[92m/usr/lib/python3.11/site-packages/IPython/core/shell.py:3823"
            "\x1b[39m in \x1b[95mrun_code\x1b[39m\n    exec(code_obj)\n",
            "\x1b[36m  Cell \x1b[39m\x1b[32mIn[17]\x1b[39m\x1b[32m, line 1\x1b[39m\n"
            "    eval('1+')\n",
            "  \x1b[36mFile \x1b[39m\x1b[32m<string>:1\x1b[39m\n    1+\n     ^\n"
            "SyntaxError: invalid syntax\n",
        ),
        "Cell In[17], line 1\n    eval('1+')\n"
        "File <string>:1\n    1+\n     ^\nSyntaxError: invalid syntax",
    ),
    "tracebacks in plain style": (
        error(
            "ZeroDivisionError",
            "division by zero",
            "Traceback (most recent call last):\n",
            "  Cell In[11], line 3\n    g()\n",
            "  Cell In[11], line 2 in g\n    return 1/0\n",
            "ZeroDivisionError: division by zero\n",
        ),
        "Cell In[11], line 3\n    g()\nCell In[11], line 2 in g\n    return 1/0\n"
        "ZeroDivisionError: division by zero",
    ),
    "the frames of the user's own module": (
        error(
            "E",
            "",
            *KEY_ERROR["traceback"][:3],
            "File ~/work/rain.py:2, in w()\n----> 2     return 1/0\n",
            "E: ",
        ),
        "Cell In[1], line 2\n    d['precip']\n~/work/rain.py:2 in w\n    return 1/0\nE",
    ),
    "notes": (
        error(*("ValueError", "x"), *KEY_ERROR["traceback"][:3], "ValueError: x", "look at row 3"),
        "Cell In[1], line 2\n    d['precip']\nValueError: x\nlook at row 3",
    ),
    "the members of a group": (
        error("ExceptionGroup", "many (2 sub-exceptions)", GROUP),
        "ExceptionGroup: many (2 sub-exceptions)\n  ZeroDivisionError: division by zero\n"
        "  ExceptionGroup: inner (1 sub-exception)\n    FileNotFoundError: [Errno 2] no",
    ),
    "an error without a traceback": (
        error("UsageError", "Line magic `%x` not found."),
        "UsageError: Line magic `%x` not found.",
    ),
    "an error of several lines": (error("E", "one\ntwo", "E: one\ntwo"), "E: one\ntwo"),
}


@pytest.mark.parametrize(("output", "text"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_shows(output: Output, text: str) -> None:
    assert error_text(output) == text


def test_a_long_error_message_is_bounded() -> None:
    text = error_text(error("E", "x" * 50_000, "E: " + "x" * 50_000))
    assert len(text) < 2_200
    assert "48,000 characters left out" in text


def test_many_different_frames_are_bounded() -> None:
    frames = [USER_FRAME.format(line=n, name=f"f{n}") for n in range(100)]
    text = error_text(error("E", "x", *frames, "E: x"))
    assert "… 89 more frames …" in text
    assert "Cell In[2], line 99 in f99" in text


def test_a_group_that_was_printed_is_shown_short() -> None:
    text = shown(
        stream("before\n" + GROUP, "stderr"), error("ExceptionGroup", "many (2 sub-exceptions)")
    )
    assert text.startswith(
        "stderr:\nbefore\nExceptionGroup: many (2 sub-exceptions)\n  ZeroDivision"
    )


TERMINAL = {
    "colours": ("\x1b[31mred\x1b[0m", "red"),
    "a title": ("\x1b]0;title\x07text", "text"),
    "a link": ("\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\", "text"),
    "a progress bar": ("\r 10%\r 50%\r100%\n", "100%\n"),
    "a progress bar with the end of the line": ("10%\r50%\r", "50%"),
    "a shorter line over a longer one": ("abcdef\rxy", "xycdef"),
    "an erased line": ("abcdef\r\x1b[Kxy", "xy"),
    "backspaces": ("10%\b\b\b20%", "20%"),
    "too many backspaces": ("a\b\b\bb", "b"),
    "Windows line ends": ("a\r\nb\r\n", "a\nb\n"),
    "bells and nulls": ("a\x07\x00b", "ab"),
    "tabs and line ends": ("a\tb\nc", "a\tb\nc"),
    "half a character": ("a\ud83db", "a\ufffdb"),
    "an unfinished sequence": ("a\x1b[3", "a"),
}


@pytest.mark.parametrize(("text", "plain"), TERMINAL.values(), ids=TERMINAL.keys())
def test_a_terminal_would_show(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@given(st.text(st.sampled_from("ab\r\b\n\x1b[K0m;\x00\x9b]\x07 "), max_size=60))
@examples(300)
def test_plain_text_has_no_control_characters_and_is_stable(text: str) -> None:
    plain = plain_text(text)
    assert all(character == "\n" or character.isprintable() for character in plain)
    assert plain_text(plain) == plain


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


PNG = encoded(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 640, 480) + b"\x08\6\0\0\0" + b"x" * 99
)
JPEG = encoded(
    b"\xff\xd8\xff\xe0\0\x10JFIF"
    + b"\0" * 10
    + b"\xff\xc0\0\x11\x08"
    + struct.pack(">HH", 480, 640)
)
GIF = encoded(b"GIF89a" + struct.pack("<HH", 640, 480) + b"x" * 20)
SVG = '<?xml version="1.0"?>\n<svg width="640.0pt" height="480pt" viewBox="0 0 1 1"></svg>'
TABLE = "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>&lt;2</td></tr></table>"

OUTPUTS = {
    "a stream as it is": (stream("a\n  b\n"), "a\n  b\n"),
    "stderr with its name": (stream("careful\n", "stderr"), "stderr:\ncareful\n"),
    "blank stderr without": (stream("\n", "stderr"), "\n"),
    "plain text": (display(text__plain="42"), "42"),
    "a table's plain text": (display(text__plain="   a\n0  1", text__html=TABLE), "   a\n0  1"),
    "Markdown": (
        display(text__plain="<IPython.core.display.Markdown object>", text__markdown="**b**"),
        "**b**",
    ),
    "an object": (
        display(text__plain="<rain.Gauge object at 0x7f>"),
        "<rain.Gauge object at 0x7f>",
    ),
    "an HTML table": (display(text__html=TABLE), "a\tb\n1\t<2"),
    "HTML without words": (
        display(text__html="<script>f()</script><div></div>"),
        "[text/html output, 31 characters]",
    ),
    "another MIME type": (
        display(**{"application__x": "x" * 1234}),
        "[application/x output, 1,234 characters]",
    ),
    "a JSON value": (
        display(**{"application__json": {"a": 1}}),
        "[application/json output, 8 characters]",
    ),
    "a PNG figure": (display(image__png=PNG, text__plain="<Figure>"), "[figure 640×480]"),
    "a PNG figure in lines": (display(image__png=[PNG[:40] + "\n", PNG[40:]]), "[figure 640×480]"),
    "a JPEG figure": (display(image__jpeg=JPEG), "[figure 640×480]"),
    "a GIF figure": (display(image__gif=GIF), "[figure 640×480]"),
    "an SVG figure": (display(**{"image__svg+xml": SVG}), "[figure 640×480]"),
    "a broken figure": (display(image__png="%%%"), "[figure]"),
    "lines as nbformat stores them": (display(text__plain=["a\n", "b"]), "a\nb"),
    "an answer": (display(**{ANSWER_MIME: {"value": 42}, "text__plain": "42"}), "Answer: 42"),
    "an answer without text": (display(**{ANSWER_MIME: {"value": 42}}), 'Answer: {"value": 42}'),
    "nothing": (display(), ""),
}


@pytest.mark.parametrize(("output", "text"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_an_output_shows(output: Output, text: str) -> None:
    assert output_text(output) == text


def test_an_answer_is_shown_as_long_as_any_output_may_be() -> None:
    answer = "| month | rain |\n" * 300
    assert shown(display(**{ANSWER_MIME: {"value": 1}, "text__plain": answer})).count("rain") == 300


def test_the_size_of_a_figure_comes_from_its_header() -> None:
    assert figure_size(display(image__png=PNG)) == ("image/png", 640, 480)
    assert figure_size(stream("x")) is None


def drawn(number: int, size: tuple[int, int] = (30, 20)) -> str:
    """A figure that differs from those with other numbers, in base64."""
    file = io.BytesIO()
    Image.new("RGB", size, (number, 0, 0)).save(file, "PNG")
    return encoded(file.getvalue())


def seen(*outputs: Output) -> Observation:
    return observe(CellResult("", outputs=outputs), images=True)


def test_figures_are_attached_when_images_are_asked_for() -> None:
    data = drawn(1)
    outputs = (display(image__png=[data[:40] + "\n", data[40:]]), stream("x\n"))
    assert seen(*outputs) == Observation(
        "[figure 30×20, attached]\nx", (f"data:image/png;base64,{data}",)
    )
    assert observe(CellResult("", outputs=outputs)) == Observation("[figure 30×20]\nx")


def test_of_many_figures_the_last_are_attached_in_their_order() -> None:
    figures = [drawn(number) for number in range(MAX_IMAGES + 2)]
    observation = seen(*(display(image__png=data) for data in figures))
    assert observation.images == tuple(f"data:image/png;base64,{data}" for data in figures[2:])
    left_out = "[figure 30×20, not attached: only the last 4 are]"
    assert observation.text.splitlines() == [left_out] * 2 + ["[figure 30×20, attached]"] * 4


def test_the_same_figure_is_attached_once_and_where_it_was_shown_last() -> None:
    first, other = display(image__png=drawn(1)), display(image__png=drawn(2))
    observation = seen(first, other, first)
    assert len(observation.images) == 2
    assert observation.images[1].endswith(drawn(1))
    assert observation.text.splitlines() == [
        "[figure 30×20, the same as a later one]",
        "[figure 30×20, attached]",
        "[figure 30×20, attached]",
    ]


def test_a_large_figure_is_scaled_and_called_by_its_own_size() -> None:
    observation = seen(display(image__png=drawn(1, (3000, 1500))))
    assert observation.text == "[figure 3000×1500, attached]"
    (url,) = observation.images
    assert figure_size(display(image__png=url.partition(",")[2])) == ("image/png", 1024, 512)


def test_a_figure_that_moves_is_attached_as_its_first_frame() -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    observation = seen(display(image__gif=encoded(file.getvalue())))
    assert observation.text == "[figure 30×20, its first frame attached]"
    assert observation.images[0].startswith("data:image/png;")


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (
            display(image__png=PNG),
            "[figure 640×480, not attached: it is no image that can be read]",
        ),
        (display(image__png=drawn(1)[:80]), "[figure 30×20, not attached: it is damaged]"),
        (display(image__png="%%%"), "[figure, not attached: it is damaged]"),
        (display(image__png="ä"), "[figure, not attached: it is damaged]"),
        (display(image__gif=encoded(b"x" * 99)), "not attached: it is no image that can be read]"),
        (display(**{"image__svg+xml": SVG}), "[figure 640×480, not attached: it is SVG]"),
    ],
)
def test_a_figure_that_cannot_be_attached_says_why(output: Output, text: str) -> None:
    observation = seen(output, stream("x"))
    assert observation.text.endswith(f"{text}\nx")
    assert observation.images == ()


def test_the_figure_of_an_answer_is_attached_below_it() -> None:
    answer = display(**{ANSWER_MIME: {"text": "<Figure>"}}, image__png=drawn(1))
    observation = seen(answer)
    assert observation.text.splitlines()[1:] == ["[figure 30×20, attached]"]
    assert len(observation.images) == 1


def test_outputs_come_in_order_and_errors_last() -> None:
    text = shown(stream("a\n"), KEY_ERROR, display(text__plain="b"))
    assert text == f"a\nb\n{error_text(KEY_ERROR)}"


def test_no_output_is_said() -> None:
    assert shown() == "(no output)"
    assert shown(stream("\n \n")) == "(no output)"
    assert shown(variables={"a": "int 1"}) == "(no output)\nVariables: a: int 1"


def test_why_a_cell_was_stopped_is_a_line() -> None:
    text = shown(stream("half\n"), status="interrupted", reason="Interrupted after 5 s.")
    assert text == "half\n[Interrupted after 5 s.]"


def test_variables_are_bounded_and_the_rest_counted() -> None:
    text = shown(variables={f"name{n}": "DataFrame 1461×6" for n in range(40)})
    line = text.split("\n")[-1]
    assert line.startswith("Variables: name0: DataFrame 1461×6, name1: ")
    assert line.endswith(f" … and {40 - line.count('DataFrame')} more")
    assert len(line) < 650


def test_blanks_that_show_nothing_are_left_out() -> None:
    assert shown(stream("\n\na   \t\n\n\n\n\n\nb\n\n")) == "a\n\n\nb"


def test_the_middle_of_a_long_output_is_left_out_at_line_ends() -> None:
    text = shown(stream("".join(f"line {n}\n" for n in range(10_000))), max_chars=1000)
    assert len(text) <= 1000
    head, left_out, tail = text.partition("\n… ")[0], text.split("… ")[1], text.split("…\n")[1]
    assert head.split("\n") == [f"line {n}" for n in range(len(head.split("\n")))]
    assert tail.split("\n")[-1] == "line 9999"
    assert tail.startswith("line ")
    hidden = len("".join(f"line {n}\n" for n in range(10_000))) - len(head) - len(tail)
    lines = 10_000 - len(head.split("\n")) - len(tail.split("\n"))
    assert left_out.startswith(f"{hidden - 1:,} characters ({lines:,} lines) left out here")


def test_a_giant_output_crowds_out_neither_error_nor_closing_lines() -> None:
    text = shown(
        stream("x" * 100_000),
        KEY_ERROR,
        max_chars=500,
        reason="Interrupted.",
        variables={"a": "int 1"},
    )
    assert text.endswith(f"x\n{error_text(KEY_ERROR)}\n[Interrupted.]\nVariables: a: int 1")
    assert "characters left out here" in text
    assert len(text) <= 500


def test_what_two_giant_outputs_hide_is_counted_once() -> None:
    giant = "".join(f"{n:09}\n" for n in range(300_000))
    text = shown(stream(giant), display(text__plain="between"), stream(giant))
    assert text.count("left out here") == 1
    hidden = int(text.split("… ")[1].split(" ")[0].replace(",", ""))
    assert abs(hidden + len(text) - 2 * len(giant)) < 200


def test_a_giant_progress_bar_is_shown_as_it_ended() -> None:
    text = shown(stream("start\n" + "\r 45%|####      |" * 500_000 + "\r100%|##########|\ndone\n"))
    assert text.endswith("100%|##########|\ndone")


def test_output_of_100_mb_is_observed_in_well_under_two_seconds() -> None:
    outputs = (stream("a line of text\n" * 7_000_000), KEY_ERROR)
    started = time.perf_counter()
    text = observe(CellResult("", outputs=outputs)).text
    assert time.perf_counter() - started < 1
    assert len(text) <= 8000


HOSTILE = ["\b", "\r", "\x1b[", "\x1b]", "\x00", " ", "\n", "<", "<script>", "a\r\n", "\x1b[K", "'"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_output_is_observed_quickly(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    outputs = (
        stream(text),
        display(text__html=text[:300_000]),
        error("E", text[:300_000], text[:300_000]),
    )
    started = time.perf_counter()
    assert len(observe(CellResult("", outputs=outputs)).text) < 20_000
    assert time.perf_counter() - started < 2


@given(
    st.lists(st.text(st.sampled_from("ab \n\r\x00…"), max_size=300), max_size=5),
    st.integers(0, 400),
)
@examples(200)
def test_observations_are_bounded_and_deterministic(texts: list[str], max_chars: int) -> None:
    outputs = tuple(stream(text) for text in texts)
    text = shown(*outputs, max_chars=max_chars)
    assert text == shown(*outputs, max_chars=max_chars)
    assert len(text) <= max(max_chars, 100)
    assert "\x00" not in text
