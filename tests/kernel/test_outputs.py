import pytest

from kernel_agent.kernel import bounded, outputs
from kernel_agent.kernel.fitting import fitted
from kernel_agent.kernel.outputs import CellOutputs


def message(kind, display_id=None, **content):
    if display_id is not None:
        content["transient"] = {"display_id": display_id}
    return {"header": {"msg_type": kind}, "content": content}


def display(text, display_id=None):
    return message("display_data", display_id, data={"text/plain": text}, metadata={})


@pytest.fixture
def small(monkeypatch):
    """The bounds of a cell, small enough to be reached: 100 characters, 10 outputs."""
    for module in (bounded, outputs):
        monkeypatch.setattr(module, "MAX_CHARS", 100)
    monkeypatch.setattr(bounded, "MAX_OUTPUTS", 10)


def stream(text, name="stdout"):
    return message("stream", name=name, text=text)


def collect(*messages):
    cell = CellOutputs()
    for each in messages:
        cell.add(each)
    return list(cell.all())


def test_pieces_of_one_stream_that_follow_each_other_are_one_output():
    assert collect(stream("a"), stream("b"), stream("!", "stderr"), stream("c")) == [
        {"output_type": "stream", "name": "stdout", "text": "ab"},
        {"output_type": "stream", "name": "stderr", "text": "!"},
        {"output_type": "stream", "name": "stdout", "text": "c"},
    ]


def test_an_update_replaces_every_display_of_its_id_in_place():
    shown = collect(
        message("display_data", "one", data={"text/plain": "old"}, metadata={}),
        stream("between"),
        message("display_data", "one", data={"text/plain": "old"}, metadata={}),
        message("update_display_data", "one", data={"text/plain": "new"}, metadata={"a": 1}),
    )
    assert [o.get("data", {}).get("text/plain") for o in shown] == ["new", None, "new"]
    assert shown[0]["metadata"] == {"a": 1}


def test_clear_output_clears_at_once_or_with_the_next_output():
    assert collect(stream("a"), message("clear_output", wait=False)) == []
    assert collect(stream("a"), message("clear_output", wait=True))[0]["text"] == "a"
    cleared = collect(stream("a"), message("clear_output", wait=True), stream("b"))
    assert [o["text"] for o in cleared] == ["b"]


def test_nothing_transient_is_stored():
    (output,) = collect(message("display_data", "x", data={"text/plain": "1"}, metadata={}))
    assert set(output) == {"output_type", "data", "metadata"}


def test_a_listener_is_told_only_the_new_text_of_a_stream():
    cell = CellOutputs()
    cell.add(stream("first"))
    assert cell.add(stream(" second"))["text"] == " second"


def test_a_flood_keeps_its_beginning_and_its_end_and_says_what_is_missing(small):
    cell = CellOutputs()
    for number in range(1000):
        cell.add(stream(f"{number:04d} "))
    (output,) = cell.all()
    assert output["text"].startswith("0000 0001 ")
    assert output["text"].endswith("0998 0999 ")
    assert "4,900 characters were not kept" in output["text"]


def test_one_giant_write_is_bounded_too(small):
    (output,) = collect(stream("a" * 60 + "b" * 1000 + "c" * 50))
    head, note, tail = output["text"].split("\n")
    assert (head, tail) == ("a" * 50, "c" * 50)
    assert "1,010 characters" in note


@pytest.mark.parametrize("data", [None, {}, {"text/plain": 5}, {"application/json": {"a": [1]}}])
def test_a_bundle_of_any_form_becomes_text_or_json(data):
    (output,) = collect(message("display_data", data=data, metadata=None))
    assert all(isinstance(v, str) or k.endswith("json") for k, v in output["data"].items())


def test_an_error_that_only_the_reply_tells_of_is_an_output():
    cell = CellOutputs()
    assert not cell.has_error
    cell.add_error({"ename": "ExceptionGroup", "evalue": "two", "traceback": ["a", "b"]})
    assert cell.has_error
    assert cell.all()[0]["ename"] == "ExceptionGroup"


def test_of_many_displays_the_first_and_the_last_are_kept_and_the_others_counted(small):
    shown = collect(*(display(f"{number:02d}") for number in range(50)))
    texts = [output["data"]["text/plain"] for output in shown]
    assert texts[:5] == ["00", "01", "02", "03", "04"]
    assert texts[6:] == ["45", "46", "47", "48", "49"]
    assert texts[5] == "… 80 characters and 40 outputs were not kept …"
    assert shown[5]["metadata"] == {"kernel_agent": {"not_kept": {"characters": 80, "outputs": 40}}}


def test_a_cell_that_reaches_no_bound_is_kept_whole(small):
    shown = collect(stream("a" * 60), display("b" * 20), stream("c" * 20))
    assert shown[0]["text"] + shown[2]["text"] == "a" * 60 + "c" * 20
    assert shown[1]["data"]["text/plain"] == "b" * 20
    assert len(shown) == 3


def test_every_kind_of_output_counts_towards_one_bound(small):
    shown = collect(*(each for n in range(30) for each in (stream("x" * 9), display("y" * 9))))
    sizes = [len(o["text"]) if "text" in o else len(o["data"]["text/plain"]) for o in shown]
    assert sum(sizes) < 100 + len("… 1,000 characters and 50 outputs were not kept …")


def test_a_display_that_is_too_long_keeps_its_ends_and_its_length_is_recorded(small):
    (output,) = collect(
        message(
            "display_data",
            data={"text/plain": "a" * 500 + "z" * 500, "text/html": "<b>" * 400},
            metadata={"theirs": 1},
        )
    )
    assert output["metadata"]["theirs"] == 1
    lengths = output["metadata"]["kernel_agent"]["characters"]
    assert lengths == {"text/plain": 1000, "text/html": 1200}
    head, note, tail = output["data"]["text/plain"].split("\n")
    assert (set(head), set(tail)) == ({"a"}, {"z"})
    assert note == f"… {1000 - len(head) - len(tail)} characters were not kept …"
    assert len(output["data"]["text/plain"]) <= 50
    assert "text/html" not in output["data"]


def test_of_a_bundle_the_forms_that_fit_are_kept_whole():
    data, metadata = fitted({"image/png": "p" * 900, "text/plain": "short"}, {}, 100)
    assert data == {"text/plain": "short"}
    assert metadata == {"kernel_agent": {"characters": {"image/png": 900}}}


def test_a_bundle_of_which_nothing_fits_leaves_a_line_that_says_so():
    data, _ = fitted({"image/png": "p" * 900}, {}, 100)
    assert data == {"text/plain": "[image/png of 900 characters: too long to be kept]"}


def test_an_update_cannot_make_a_cell_larger_than_its_bound(small):
    shown = collect(
        display("old", "one"),
        message("update_display_data", "one", data={"text/plain": "n" * 1000}, metadata={}),
        stream("after"),
    )
    assert shown[0]["data"]["text/plain"].count("n") < 60
    assert shown[1]["text"] == "after"


def test_an_update_of_a_display_that_was_not_kept_is_an_output_where_it_was_made(small):
    shown = collect(
        *(display(f"{number:02d}", f"id{number}") for number in range(50)),
        message("update_display_data", "id20", data={"text/plain": "new"}, metadata={}),
    )
    assert shown[-1]["data"] == {"text/plain": "new"}


def test_an_update_of_another_cells_display_says_which_and_is_then_updated_itself():
    def update(text):
        return message("update_display_data", "far", data={"text/plain": text}, metadata={})

    (output,) = collect(update("first"), update("second"))
    assert output["output_type"] == "display_data"
    assert output["data"] == {"text/plain": "second"}
    cell = CellOutputs()
    assert cell.add(update("first"))["metadata"] == {"kernel_agent": {"updates": "far"}}


def test_an_error_of_any_length_is_kept(small):
    (output,) = collect(
        message("error", ename="ValueError", evalue="v" * 999, traceback=["t" * 99, "u" * 99])
    )
    assert output["ename"] == "ValueError"
    assert "not kept" in output["evalue"]
    assert "not kept" in "".join(output["traceback"])


def test_late_text_is_an_output_of_its_own_that_says_so():
    cell = CellOutputs()
    cell.add(stream("own "))
    cell.add(stream("theirs "), late="cell 3")
    cell.add(stream("theirs too\n"), late="cell 3")
    cell.add(stream("own"))
    assert [output["text"] for output in cell.all()] == [
        "own ",
        "[late output of cell 3]\ntheirs theirs too\n",
        "own",
    ]


def test_a_late_display_says_so_in_its_metadata():
    cell = CellOutputs()
    cell.add(display("x"), late="cell 3")
    assert cell.all()[0]["metadata"] == {"kernel_agent": {"late": "cell 3"}}


def test_what_an_earlier_cell_clears_late_is_not_ours():
    cell = CellOutputs()
    cell.add(stream("kept"))
    cell.add(message("clear_output", wait=False), late="cell 3")
    assert cell.all()[0]["text"] == "kept"


def test_a_late_error_is_text_and_not_this_cells_error():
    cell = CellOutputs()
    cell.add(message("error", ename="E", evalue="v", traceback=["tb"]), late="cell 3")
    assert not cell.has_error
    assert cell.all()[0]["text"].endswith("tb\n")


def test_a_message_that_was_too_large_to_be_read_leaves_a_display_that_says_so():
    unread = {**stream(""), "content": {}, "unread": 200_000_000}
    (output,) = collect(unread)
    assert "stream message of 200,000,000 bytes" in output["data"]["text/plain"]
    assert output["metadata"] == {"kernel_agent": {"not_kept": {"bytes": 200_000_000}}}
