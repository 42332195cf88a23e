import pytest

from kernel_agent.kernel import outputs
from kernel_agent.kernel.outputs import CellOutputs


def message(kind, display_id=None, **content):
    if display_id is not None:
        content["transient"] = {"display_id": display_id}
    return {"header": {"msg_type": kind}, "content": content}


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


def test_a_flood_keeps_its_beginning_and_its_end_and_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(outputs, "MAX_STREAM_CHARS", 100)
    cell = CellOutputs()
    for number in range(1000):
        cell.add(stream(f"{number:04d} "))
    (output,) = cell.all()
    assert output["text"].startswith("0000 0001 ")
    assert output["text"].endswith("0998 0999 ")
    assert "4,900 characters were not kept" in output["text"]


def test_one_giant_write_is_bounded_too(monkeypatch):
    monkeypatch.setattr(outputs, "MAX_STREAM_CHARS", 100)
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
