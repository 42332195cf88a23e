"""What counts as drift between two executions of a cell, and what is only noise."""

from __future__ import annotations

import base64
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kernel_agent.comparing.comparison import Measure, Verdict, compare
from kernel_agent.comparing.normalising import compile_ignored, load_rules, normalised
from kernel_agent.comparing.pixels import MAX_PIXELS, image_difference
from kernel_agent.errors import SettingsError
from kernel_agent.steps import ANSWER_MIME, CellResult, CellStatus, Output

SHIPPED = Measure.shipped()
STRICT = Measure(strict=True)


def stream(text: str, name: str = "stdout") -> Output:
    return {"output_type": "stream", "name": name, "text": text}


def display(text: str, **data: Any) -> Output:
    bundle = {
        "text/plain": text,
        **{mime.replace("__", "/"): value for mime, value in data.items()},
    }
    return {"output_type": "display_data", "data": bundle, "metadata": {}}


def error(name: str, value: str, *traceback: str) -> Output:
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": list(traceback)}


def result(*outputs: Output, status: CellStatus = "ok", stopped_by: str = "") -> CellResult:
    return CellResult("source", status, outputs, 1, 0.1, stopped_by=stopped_by)


def verdict(one: Output, other: Output, measure: Measure = SHIPPED) -> Verdict:
    return compare(result(one), result(other), measure).verdict


def text_verdict(one: str, other: str, measure: Measure = SHIPPED) -> Verdict:
    return verdict(stream(one), stream(other), measure)


def png(change: Callable[[Image.Image], None] = lambda image: None, **options: Any) -> str:
    image = Image.new("RGB", (100, 100), "white")
    change(image)
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return base64.b64encode(file.getvalue()).decode()


def dots(count: int, colour: tuple[int, int, int] = (0, 0, 0)) -> Callable[[Image.Image], None]:
    def paint(image: Image.Image) -> None:
        for number in range(count):
            image.putpixel((number % 100, number // 100), colour)

    return paint


NOISE = {
    "addresses": ("<object object at 0x7f3a1c0de>", "<object object at 0x55d2f00baa>"),
    "bound methods": (
        "<bound method A.f of <A at 0x7f3a1c0de>>",
        "<bound method A.f of <A at 0x7f3affff0>>",
    ),
    "threads": (
        "<Thread(Thread-5 (work), started 139871234)>",
        "<Thread(Thread-5 (work), started 139879999)>",
    ),
    "CPU times": (
        "CPU times: user 10 μs, sys: 4 μs, total: 14 μs\nWall time: 15 μs\n",
        "CPU times: user 1.2 ms, sys: 0 ns, total: 1.2 ms\nWall time: 2 min 3s\n",
    ),
    "CPU times with a compiler": (
        "CPU times: user 1 s, sys: 4 μs, total: 1 s\nCompiler : 124 ms\nWall time: 1 s\n",
        "CPU times: user 1 s, sys: 4 μs, total: 1 s\nWall time: 1 s\n",
    ),
    "timeit": (
        "12.3 ns ± 0.5 ns per loop (mean ± std. dev. of 7 runs, 10,000,000 loops each)",
        "1.2 µs ± 11 ns per loop (mean ± std. dev. of 7 runs, 1,000,000 loops each)",
    ),
    "temporary files": ("/tmp/tmp21aboewf/data.csv", "/tmp/tmpx0_9abcd/data.csv"),
    "temporary files of other systems": (
        "/var/folders/zz/zyxvpxvq6csfxvn_n00/T/tmp21aboewf/data.csv",
        "/tmp/tmpx0_9abcd/data.csv",
    ),
    "temporary files of Windows": (
        r"C:\Users\me\AppData\Local\Temp\tmp21aboewf\data.csv",
        r"C:\Users\you\AppData\Local\Temp\tmpx0_9abcd\data.csv",
    ),
    "warnings of a cell": (
        "/tmp/ipykernel_123/456789.py:1: UserWarning: x",
        "/tmp/ipykernel_99/123456.py:1: UserWarning: x",
    ),
    "progress bars": (
        " 50%|##   | 5/10 [00:01<00:01, 4.9it/s]\r100%|#####| 10/10 [00:02<00:00, 5.0it/s]\n",
        " 10%|#    | 1/10 [00:01<00:09, 1.0it/s]\r100%|#####| 10/10 [00:01<00:00, 8.1it/s]\n",
    ),
    "progress without a length": ("57it [00:03, 18.2it/s]", "57it [00:02, 25.0it/s]"),
    "printed tracebacks": (
        "Cell In[5], line 2, in f\nIn [5], line 2",
        "Cell In[15], line 2, in f\nIn [15], line 2",
    ),
    "figures' sizes": ("<Figure size 400x300 with 1 Axes>", "<Figure size 640x480 with 1 Axes>"),
    "styled tables": (
        '<style>#T_1a2b3_row0_col0 {color: red}</style><table id="T_1a2b3">',
        '<style>#T_ffe0a_row0_col0 {color: red}</style><table id="T_ffe0a">',
    ),
    "plotly's elements": (
        '<div id="0a1b2c3d-1111-4222-8333-0123456789ab" class="plotly-graph-div">',
        '<div id="9f9f9f9f-1111-4222-8333-0123456789ab" class="plotly-graph-div">',
    ),
    "log lines": (
        "2024-05-01 12:00:00,123 - app - INFO - read",
        "2025-06-02 13:14:15,999 - app - INFO - read",
    ),
    "blanks at line ends": ("a  \nb\n", "a\nb\n"),
    "colours": ("\x1b[31mred\x1b[0m", "red"),
}


@pytest.mark.parametrize("pair", NOISE.values(), ids=list(NOISE))
def test_noise_is_no_drift_unless_texts_must_be_equal(pair: tuple[str, str]) -> None:
    assert text_verdict(*pair) == "same after normalising"
    assert text_verdict(*pair, STRICT) == "differs"


DATA = {
    "hexadecimal numbers": ("0xdeadbeef", "0xdeadbee0"),
    "dates": ("2024-05-01", "2024-05-02"),
    "times": ("2024-05-01 12:00:00", "2024-05-01 12:00:01"),
    "dates before a number with a comma": ("2024-05-01 12:00:00,123", "2024-05-02 12:00:00,123"),
    "keys": (
        "0a1b2c3d-1111-4222-8333-0123456789ab 7",
        "9f9f9f9f-1111-4222-8333-0123456789ab 7",
    ),
    "names that begin with tmp": ("/data/tmp_results", "/data/tmp_outputs"),
    "files in a temporary folder": ("/tmp/a.csv", "/tmp/b.csv"),
    "percentages": ("50% done", "60% done"),
    "how far a bar came": (
        "100%|#####| 10/10 [00:02<00:00, 5.0it/s]",
        "100%|#####| 11/11 [00:02<00:00, 5.0it/s]",
    ),
    "axes": ("<Figure size 400x300 with 1 Axes>", "<Figure size 400x300 with 2 Axes>"),
    "seconds in prose": ("The tram takes 3 s.", "The tram takes 4 s."),
    "versions": ("2.1.0", "2.1.1"),
    "blanks inside a line": ("a b", "a  b"),
    "lines": ("a\nb", "a\nb\nc"),
}


@pytest.mark.parametrize("pair", DATA.values(), ids=list(DATA))
def test_data_are_never_taken_for_noise(pair: tuple[str, str]) -> None:
    assert text_verdict(*pair) == "differs"


@pytest.mark.parametrize(
    ("one", "other", "tolerance", "agree"),
    [
        ("mean 0.30000000", "mean 0.30000001", 1e-6, True),
        ("mean 0.3000", "mean 0.3001", 1e-6, False),
        ("mean 0.3000", "mean 0.3001", 1e-3, True),
        ("1e-12", "0.0", 1e-6, True),  # absolute
        ("1234567.1", "1234567.2", 1e-6, True),  # relative
        ("1,234,567.1", "1,234,567.2", 1e-6, True),
        ("-1.0", "1.0", 1e-6, False),
        ("2000000 rows", "2000001 rows", 1e-6, False),  # a count
        ("100 rows", "101 rows", 0.1, True),
        ("1.0 a", "1.0 b", 0.1, False),
        ("0.1\n0.2", "0.1\n0.2\n0.3", 0.1, False),
        ("0.1 0.2", "0.1", 0.1, False),
        ("1.5", "1.50000001", 0.0, False),
        ("9" * 400 + ".5", "8" * 400 + ".5", 0.1, False),
        ("x1.5", "x1.50000001", 1e-6, False),  # part of a word
        ("nan", "1.0", 0.1, False),
    ],
)
def test_numbers_agree_within_the_tolerance(
    one: str, other: str, tolerance: float, agree: bool
) -> None:
    measure = Measure(load_rules(), tolerance=tolerance)
    expected = "same after normalising" if agree else "differs"
    assert text_verdict(one, other, measure) == expected
    assert text_verdict(other, one, measure) == expected


def test_a_number_that_is_longer_widens_its_column_and_nothing_else() -> None:
    one = "      x\n0  0.25\n1  0.50"
    other = "            x\n0  0.25000000\n1  0.50000001"
    assert verdict(display(one), display(other)) == "same after normalising"


def test_numbers_in_html_tables_agree_within_the_tolerance() -> None:
    def table(number: str) -> Output:
        return display("a table", text__html=f"<table><td>{number}</td></table>")

    assert verdict(table("0.5"), table("0.50000001")) == "same after normalising"
    found = compare(result(table("0.5")), result(table("0.6")), SHIPPED)
    assert found.verdict == "differs"
    assert [one.part for one in found.differences] == ["text/html"]
    assert "0.5 → 0.6" in found.differences[0].text


def test_numbers_in_json_and_in_an_answer_are_compared() -> None:
    def answer(value: object) -> Output:
        return {
            "output_type": "display_data",
            "data": {ANSWER_MIME: {"value": value}},
            "metadata": {},
        }

    assert verdict(answer({"b": 1, "a": 0.1}), answer({"a": 0.1, "b": 1})) != "differs"
    assert verdict(answer(0.1), answer(0.2)) == "differs"


def test_pieces_of_a_stream_and_the_order_of_stdout_and_stderr_do_not_matter() -> None:
    one = result(stream("a\nb\n"), stream("warn\n", "stderr"), stream("c\n"))
    other = result(stream("warn\n", "stderr"), stream("a\n"), stream("b\nc\n"))
    assert compare(one, other, SHIPPED).verdict == "same"
    assert compare(one, other, STRICT).verdict == "same"


def test_the_order_of_prints_and_displays_matters() -> None:
    one, other = result(stream("a\n"), display("x")), result(display("x"), stream("a\n"))
    assert compare(one, other, SHIPPED).verdict == "differs"


def test_of_errors_type_and_message_count_and_the_traceback_only_if_texts_must_be_equal() -> None:
    one = result(error("KeyError", "'a'", "Cell In[3]", "one"), status="error")
    other = result(error("KeyError", "'a'", "Cell In[4]", "other"), status="error")
    changed = result(error("KeyError", "'b'", "Cell In[3]", "one"), status="error")
    assert compare(one, other, SHIPPED).verdict == "same"
    assert compare(one, other, STRICT).verdict == "differs"
    found = compare(one, changed, SHIPPED)
    assert found.verdict == "differs"
    assert found.differences[0].text == "- KeyError: 'a'\n+ KeyError: 'b'"


RAISED = error("KeyError", "'a'")


@pytest.mark.parametrize(
    ("was", "now", "expected", "said"),
    [
        (result(), result(RAISED, status="error"), "new error", "+ KeyError: 'a'"),
        (result(RAISED, status="error"), result(), "error gone", "- KeyError: 'a'"),
        (result(), result(status="died"), "new error", "+ the kernel ended"),
        (result(status="died"), result(), "error gone", "- the kernel ended"),
        (result(status="interrupted"), result(), "error gone", "- it was stopped"),
        (
            result(RAISED, status="error"),
            result(status="died"),
            "differs",
            "- KeyError: 'a'\n+ the kernel ended",
        ),
    ],
)
def test_the_verdict_says_how_the_endings_differ(
    was: CellResult, now: CellResult, expected: Verdict, said: str
) -> None:
    found = compare(was, now, SHIPPED)
    assert (found.verdict, found.differences[0].text) == (expected, said)


def test_a_cell_that_ended_the_kernel_both_times_is_the_same() -> None:
    one, other = result(stream("a"), status="died"), result(status="died")
    assert compare(one, other, SHIPPED).verdict == "same"


def stopped(text: str) -> CellResult:
    return result(stream(text), error("KeyboardInterrupt", ""), status="interrupted")


def test_of_two_stopped_cells_one_must_have_printed_the_beginning_of_the_others_output() -> None:
    assert compare(stopped("1\n2\n3\n"), stopped("1\n2\n3\n4\n5\n"), SHIPPED).verdict != "differs"
    assert compare(stopped("1\n2\nha"), stopped("1\n2\nhalf\n3\n"), SHIPPED).verdict != "differs"
    assert compare(stopped("1\n2\n3\n4\n"), stopped("1\n9\n3\n"), SHIPPED).verdict == "differs"


def test_a_cell_that_a_user_had_stopped_by_hand_counts_as_stopped() -> None:
    by_hand = result(error("KeyboardInterrupt", ""), status="error")
    assert compare(by_hand, stopped("1\n"), SHIPPED).verdict != "differs"


def test_what_matches_an_ignored_pattern_is_dropped_on_both_sides() -> None:
    measure = Measure(load_rules(), compile_ignored([r"run \w+", r"^took .*\n"]))
    assert text_verdict("run a7\nx\ntook 3 s\n", "run b8\nx\n", measure) != "differs"
    assert text_verdict("run a7\nx\n", "run a7\ny\n", measure) == "differs"
    strict = Measure(ignored=compile_ignored(["[0-9]"]), strict=True)
    assert text_verdict("a1", "a2", strict) == "same after normalising"


def test_an_output_that_is_missing_or_new_is_shown() -> None:
    found = compare(result(display("a"), stream("b\n")), result(display("a")), SHIPPED)
    assert found.verdict == "differs"
    assert found.differences[0].part == "stdout"
    assert found.differences[0].text == "was there then, not now\n- b"
    found = compare(result(), result(display("c")), SHIPPED)
    assert found.differences[0].text == "is new\n+ c"


def test_a_form_of_a_display_that_is_missing_differs() -> None:
    both = display("x", text__html="<b>x</b>")
    assert verdict(both, display("x")) == "differs"


def test_views_of_widgets_have_random_ids_and_are_not_compared() -> None:
    def widget(name: str) -> Output:
        view = {"model_id": name, "version_major": 2}
        return display("bar", **{"application__vnd.jupyter.widget-view+json": view})

    assert verdict(widget("a"), widget("b")) == "same"


def test_a_difference_of_text_is_a_diff_with_the_numbers_behind() -> None:
    lines = [f"row {n} 0.5" for n in range(50)]
    other = [*lines[:30], "row 30 0.75", *lines[31:]]
    found = compare(
        result(stream("\n".join(lines))), result(stream("\n".join(other))), SHIPPED
    ).differences[0]
    assert found.text.splitlines() == [
        "  row 28 0.5",
        "  row 29 0.5",
        "- row 30 0.5",
        "+ row 30 0.75",
        "  row 31 0.5",
        "  row 32 0.5",
        "  numbers, then → now: 0.5 → 0.75 (+50 %)",
    ]


@pytest.mark.slow
def test_a_difference_is_bounded_however_much_differs() -> None:
    one, other = ("\n".join(f"{side} {n} " + "x" * 500 for n in range(8_000)) for side in "ab")
    started = time.monotonic()
    found = compare(result(stream(one)), result(stream(other)), SHIPPED).differences[0]
    assert time.monotonic() - started < 20
    assert len(found.text) < 15_000
    assert "more lines" in found.text


def test_many_differing_outputs_are_counted() -> None:
    one, other = (result(*(display(f"{side}{n}") for n in range(2_000))) for side in "ab")
    found = compare(one, other, SHIPPED)
    assert len(found.differences) == 11
    assert found.differences[-1].text == "… 1,990 more differences"


def test_images_are_compared_by_their_pixels() -> None:
    def picture(data: str) -> Output:
        return display("<Figure size 100x100 with 1 Axes>", image__png=data)

    plain = picture(png())
    assert verdict(plain, picture(png(compress_level=0))) == "same after normalising"
    assert verdict(plain, picture(png(dots(10)))) == "same after normalising"  # 0.1 %
    assert verdict(plain, picture(png(dots(11)))) == "image differs"
    assert verdict(plain, picture(png(dots(900, (247, 247, 247))))) == "same after normalising"
    assert verdict(plain, picture(png(dots(900, (255, 255, 246))))) == "image differs"


def test_what_differs_between_images_is_said_in_words() -> None:
    small = io.BytesIO()
    Image.new("RGB", (50, 40)).save(small, "PNG")
    other = base64.b64encode(small.getvalue()).decode()
    assert image_difference(png(), png(dots(250))) == "2.50 % of the pixels differ"
    assert image_difference(png(), other) == "100×100 pixels then, 50×40 now"
    assert image_difference(png(), png()[:60]).startswith("the bytes differ")
    assert image_difference("no image", "no image") == ""
    assert image_difference("no image", "none").startswith("the bytes differ")
    assert image_difference("ÄÖÜ", "ä\ud800").startswith("the bytes differ")


def test_an_image_that_would_fill_the_memory_is_not_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    bombs = []
    for colour in (0, 1):
        file = io.BytesIO()
        Image.new("1", (side, side), colour).save(file, "PNG")
        bombs.append(base64.b64encode(file.getvalue()).decode())
    assert image_difference(*bombs).startswith("the bytes differ")


def test_text_and_image_that_differ_are_both_named() -> None:
    one = result(display("a", image__png=png()))
    other = result(display("b", image__png=png(dots(500))))
    found = compare(one, other, SHIPPED)
    assert found.verdict == "differs"
    assert [part.part for part in found.differences] == ["text/plain", "image/png"]


OUTPUTS = st.lists(
    st.one_of(
        st.builds(stream, st.text(), st.sampled_from(["stdout", "stderr"])),
        st.builds(display, st.text()),
        st.builds(error, st.text(), st.text(), st.text()),
        st.builds(lambda data: display("x", image__png=data), st.text()),
    ),
    max_size=4,
)


@given(OUTPUTS, OUTPUTS, st.booleans())
def test_a_result_is_the_same_as_itself_and_drift_goes_both_ways(
    one: list[Output], other: list[Output], strict: bool
) -> None:
    measure = STRICT if strict else SHIPPED
    first, second = result(*one), result(*other)
    assert compare(first, first, measure).verdict == "same"
    there, back = compare(first, second, measure), compare(second, first, measure)
    assert there.verdict == back.verdict
    assert bool(there.differences) == (there.verdict not in ("same", "same after normalising"))


HOSTILE = {
    "digits": "1" * 200_000,
    "digits and points": "1." * 100_000,
    "digits and commas": "1," * 100_000 + "x",
    "blanks": " " * 200_000 + "x",
    "hexadecimal digits": 'id="' + "a" * 200_000,
    "bars": "50%|" * 50_000,
    "open bars": "50%|" + "#" * 200_000,
    "brackets": "In [" * 50_000,
    "folders": "/tmp" * 50_000,
    "slowest": "The slowest run took " * 10_000,
    "names": "<" + "a" * 200_000 + "(",
    "equal signs": "id=" * 60_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_no_text_makes_normalising_and_comparing_slow(text: str) -> None:
    started = time.monotonic()
    assert text_verdict(text, f"{text}y") == "differs"
    assert time.monotonic() - started < 10


def test_a_file_of_rules_adds_to_the_shipped_ones_and_replaces_those_of_its_name(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        "[[rule]]\nname = 'ticket'\npattern = 'ticket #\\d+'\nreplace = 'ticket'\n"
        "[[rule]]\nname = 'wall time'\npattern = 'never found'\nreplace = ''\n"
    )
    rules = load_rules(file)
    assert normalised("ticket #12 at 0x7f00abcdef", rules) == "ticket at 0x…"
    assert normalised("Wall time: 3 s", rules) == "Wall time: 3 s"
    assert len(rules) == len(load_rules()) + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rule", "is not TOML"),
        ("[[rule]]\nname = 'a'\npattern = '('\nreplace = ''", "rule 'a' is no regular expression"),
        ("[[rule]]\nname = 'a'\npattern = 'b'\nreplace = '\\1'", "`replace` cannot be used"),
        ("[[rule]]\nname = 'a'", "rule 1 must have"),
        ("[[rule]]\nname = 'a'\npattern = 'b'\nreplace = ''\nflag = 1", "rule 1 must have"),
        ("rule = 3", "something else than tables"),
        ("[other]", "something else than tables"),
    ],
)
def test_a_file_that_holds_no_rules_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(said)):
        load_rules(file)


def test_a_file_of_rules_that_is_not_there_and_a_bad_pattern_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_rules(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match=re.escape("--ignore: '[' is no regular expression")):
        compile_ignored(["["])
