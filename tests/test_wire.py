"""Conversations with each provider's wire format through real litellm, strictly checked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest

from kernel_agent.errors import ModelError, ModelUnavailableError
from kernel_agent.events import Event, ReplyText
from kernel_agent.model import LiteLLM
from kernel_agent.model.media_parts import check_media
from kernel_agent.model.replies import ReplyReader
from kernel_agent.model.requests import build
from kernel_agent.model_loading import litellm_module
from kernel_agent.steps import Entry, Format, Observation, Reply, Step, Task
from kernel_agent.transcript.messages import messages_of
from tests.wire.answers import Call, Counts, Said
from tests.wire.anthropic_wire import AnthropicWire
from tests.wire.gemini_wire import GeminiWire
from tests.wire.openai_wire import AUDIO, MARKED, MARKED_IMAGE, VIDEO, OpenAIWire
from tests.wire.server import Body, Wire, WireServer

# pydantic's word to litellm, which silences it except where pytest listens.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the")

PNG = "data:image/png;base64,iVBORw0KGgo="
CODE = "x = \"Grüße 🎉\"\nprint(x, '\\n')\n"


def tool(name: str, *parameters: str) -> dict[str, Any]:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    function = {"name": name, "description": f"The {name} tool.", "parameters": schema}
    return {"type": "function", "function": function}


TOOLS = (tool("python", "code"), tool("search", "query"))


@dataclass
class Talk:
    """A run's side of a conversation: what is asked, and what is made of the replies."""

    model: LiteLLM
    is_streamed: bool
    entries: list[Entry] = field(default_factory=list)
    heard: list[Event] = field(default_factory=list)

    def task(self, text: str, *images: str) -> None:
        self.entries.append(Task(text, text, images))

    def step(self, observed: str = "", *images: str) -> Reply:
        """Ask for a reply, of which `observed` comes; an answer if that is empty."""
        is_native = self.model.reply_format == "tools"
        reply = self.model.complete(
            messages_of("You write code.", self.entries, native=is_native),
            self.heard.append if self.is_streamed else None,
            tools=TOOLS if is_native else (),
        )
        observation = Observation(observed, images) if observed else None
        self.entries.append(Step(reply, reply.text, observation=observation))
        return reply

    @property
    def told(self) -> str:
        return "".join(e.text for e in self.heard if isinstance(e, ReplyText) and not e.reasoning)


def talk(
    server: WireServer, name: str, reply_format: Format, streamed: bool, **params: Any
) -> Talk:
    given = {"api_base": server.url, "api_key": "sk-test", **params}
    return Talk(LiteLLM(name, retries=0, reply_format=reply_format, **given), streamed)


def python(code: str, id: str, signature: str = "") -> Call:
    return Call("python", {"code": code}, id, signature)


def written(reply_format: Format, said: Said) -> Said:
    """`said` as a model without native calls writes it."""
    code = "\n".join(str(call.arguments.get("code", call.name)) for call in said.calls)
    if reply_format == "json":
        text = json.dumps({"thought": said.text, "code": code}, ensure_ascii=False)
    else:
        text = said.text + (f"\n\n```python\n{code}\n```" if code else "")
    return replace(said, text=text, calls=())


def script(reply_format: Format, *, thinks: bool, signs: bool) -> list[Said]:
    """Two tasks: an error, two calls at once, a figure, an answer; a call, an answer."""

    def said(number: int, text: str, *calls: Call) -> Said:
        reasoning = f"Hm, {number} …" if thinks else ""
        signature = f"c2lnbg{number}=" if signs else ""
        if signs and calls:
            calls = (replace(calls[0], signature=f"Y2FsbA{number}="), *calls[1:])
        answer = Said(text, reasoning, signature, calls=calls)
        return answer if reply_format == "tools" else written(reply_format, answer)

    return [
        said(1, "I divide.", python("1/0", "call_1")),
        said(2, "", python(CODE, "call_2"), Call("search", {"query": "a b"}, "call_3")),
        said(3, "It is 42."),
        said(4, "Once more.", python("x", "call_4")),
        said(5, "Still 42."),
    ]


def hold(talk: Talk) -> list[Reply]:
    """The conversation of `script`."""
    talk.task("Compute it.")
    first = talk.step("ZeroDivisionError: division by zero")
    second = talk.step('{"found": NaN}', PNG)
    third = talk.step()
    talk.task("And again?")
    return [first, second, third, talk.step("'x'"), talk.step()]


GPT, CLAUDE, GEMINI = "openai/gpt-5", "anthropic/claude-sonnet-4-5", "gemini/gemini-3-pro-preview"
WIRES: dict[str, Wire] = {
    GPT: OpenAIWire(),
    CLAUDE: AnthropicWire(),
    "anthropic/claude-opus-4-6": AnthropicWire(),
    GEMINI: GeminiWire(is_strict=True),
    "gemini/gemini-2.5-pro": GeminiWire(),
}


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("reply_format", ["fence", "tools", "json"])
@pytest.mark.parametrize("name", WIRES)
def test_a_conversation_is_as_the_provider_documents_it(
    name: str, reply_format: Format, streamed: bool
) -> None:
    answers = script(reply_format, thinks=name != GPT, signs=name != GPT)
    with WireServer(WIRES[name], answers) as server:
        talked = talk(server, name, reply_format, streamed, reasoning_effort="low")
        replies = hold(talked)
    assert len(server.bodies) == 5
    for reply, said in zip(replies, answers, strict=True):
        assert reply.text == said.text
        assert reply.reasoning == said.reasoning
        assert [call.name for call in reply.calls] == [call.name for call in said.calls]
        assert [json.loads(call.arguments) for call in reply.calls] == [
            call.arguments for call in said.calls
        ]
        assert reply.finish_reason == ("tool_calls" if said.calls else "stop")
    if streamed and reply_format == "tools":
        assert f"```python\n{CODE}\n```\n" in talked.told
        assert 'search({"query": "a b"})\n' in talked.told


@pytest.mark.parametrize("reply_format", ["fence", "tools", "json"])
@pytest.mark.parametrize("name", WIRES)
def test_a_stream_that_ends_too_early_is_no_reply(name: str, reply_format: Format) -> None:
    said = Said("I count the rows.", calls=(python(CODE, "call_1"),))
    said = said if reply_format == "tools" else written(reply_format, said)
    with WireServer(WIRES[name], [replace(said, is_cut=True)]) as server:
        talked = talk(server, name, reply_format, True)
        talked.task("Count.")
        with pytest.raises(ModelUnavailableError, match="before the reply did"):
            talked.step()


# Reasoning and its signatures

SIGNED = [CLAUDE, "anthropic/claude-opus-4-6", GEMINI, "gemini/gemini-2.5-pro"]


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", SIGNED)
def test_every_signature_goes_back_with_the_reply_it_came_with(name: str, streamed: bool) -> None:
    answers = script("tools", thinks=True, signs=True)
    with WireServer(WIRES[name], answers) as server:
        hold(talk(server, name, "tools", streamed, reasoning_effort="low"))
    turns = [turn for turn in _turns(server.bodies[-1]) if turn["role"] in ("assistant", "model")]
    assert len(turns) == 4
    for turn, said in zip(turns, answers, strict=False):
        sent = json.dumps(turn)
        if name.startswith("gemini"):
            assert all(call.signature in sent for call in said.calls)
            assert said.signature in sent or not said.text
        else:
            assert turn["content"][0] == {
                "type": "thinking",
                "thinking": said.reasoning,
                "signature": said.signature,
            }


def _turns(body: Body) -> list[Body]:
    turns: list[Body] = body.get("messages") or body["contents"]
    return turns


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_thinking_that_is_kept_secret_goes_back_as_it_came(streamed: bool) -> None:
    secret = Said("", "Hm.", "c2ln", "c2VjcmV0", (python("1", "call_1"),))
    with WireServer(AnthropicWire(), [secret, Said("Done.")]) as server:
        talked = talk(server, CLAUDE, "tools", streamed, reasoning_effort="low")
        talked.task("Go.")
        talked.step("1")
        talked.step()
    kinds = [block["type"] for block in server.bodies[1]["messages"][1]["content"]]
    assert kinds == ["thinking", "redacted_thinking", "tool_use"]


DEEPSEEK, KIMI = "deepseek/deepseek-v4-pro", "moonshot/kimi-k3"
WANTS = OpenAIWire(message_keys=("reasoning_content",), wants_reasoning=True, more=("thinking",))


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", [DEEPSEEK, KIMI])
def test_reasoning_goes_back_to_those_who_want_it(name: str, streamed: bool) -> None:
    answers = script("tools", thinks=True, signs=False)
    with WireServer(WANTS, answers) as server:
        hold(talk(server, name, "tools", streamed))
    said = [m["reasoning_content"] for m in server.bodies[-1]["messages"] if "tool_calls" in m]
    assert said == [answers[number].reasoning for number in (0, 1, 3)]


@pytest.mark.parametrize("name", ["groq/openai/gpt-oss-120b", "openai/local"])
def test_reasoning_does_not_go_back_to_those_who_refuse_it(name: str) -> None:
    with WireServer(OpenAIWire(), script("tools", thinks=True, signs=False)) as server:
        assert next(reply.reasoning for reply in hold(talk(server, name, "tools", True)))
    assert "Hm" not in json.dumps(server.bodies)


DETAILS = (
    {"type": "reasoning.text", "text": "Hm, ", "index": 0, "format": "anthropic-claude-v1"},
    {"type": "reasoning.text", "text": "so.", "index": 0, "format": "anthropic-claude-v1"},
    {
        "type": "reasoning.text",
        "signature": "c2ln",
        "index": 0,
        "format": "anthropic-claude-v1",
    },
)
WHOLE_DETAIL = {**DETAILS[0], "text": "Hm, so.", "signature": "c2ln"}
ROUTER = OpenAIWire(
    message_keys=("reasoning_details", "reasoning"),
    reasoning="reasoning",
    more=("usage", "reasoning"),
    text=MARKED,
    media=(MARKED_IMAGE,),
)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_details_of_reasoning_go_back_to_openrouter_for_the_same_maker(streamed: bool) -> None:
    first = Said(reasoning="Hm, so.", calls=(python("1", "call_1"),), details=(WHOLE_DETAIL,))
    with WireServer(ROUTER, [first, Said("Done.")]) as server:
        talked = talk(server, "openrouter/anthropic/claude-sonnet-4.5", "tools", streamed)
        talked.task("Go.")
        talked.step("1")
        talked.step()
    (said,) = (m for m in server.bodies[1]["messages"] if m["role"] == "assistant")
    assert said["reasoning_details"] == [WHOLE_DETAIL]
    with WireServer(ROUTER, [Said("Done.")]) as server:
        other = talk(server, "openrouter/google/gemini-2.5-pro", "tools", streamed)
        other.entries = talked.entries
        other.task("And now?")
        other.step()
    assert "c2ln" not in json.dumps(server.bodies)


MODELS: dict[str, Wire] = {**WIRES, DEEPSEEK: WANTS, "groq/openai/gpt-oss-120b": OpenAIWire()}


NEXT = dict(zip(MODELS, [*list(MODELS)[1:], *list(MODELS)[:1]], strict=True))
CHANGES = [
    pytest.param(one, other, marks=[] if NEXT[one] == other else pytest.mark.slow)
    for one in MODELS
    for other in MODELS
]


@pytest.mark.parametrize(("first", "then"), CHANGES)
def test_any_model_goes_on_where_another_stopped(first: str, then: str) -> None:
    answers = script("tools", thinks=first != GPT, signs=first in SIGNED)
    with WireServer(MODELS[first], answers[:2]) as server:
        talked = talk(server, first, "tools", True, reasoning_effort="low")
        talked.task("Compute it.")
        talked.step("ZeroDivisionError: division by zero")
        talked.step("found")
    rest = script("tools", thinks=then != GPT, signs=then in SIGNED)[3:]
    with WireServer(MODELS[then], rest) as server:
        # Only what the maker itself has signed is known to it.
        server.known += answers[:2] if first.partition("/")[0] == then.partition("/")[0] else []
        other = talk(server, then, "tools", True, reasoning_effort="low")
        other.entries = talked.entries
        other.step("'x'")
        other.step()
    assert "1/0" in json.dumps(server.bodies[-1])


def test_a_claude_that_is_told_to_think_later_is_not_shown_calls_without_thinking() -> None:
    answers = script("tools", thinks=False, signs=False)
    with WireServer(AnthropicWire(), answers[:1]) as server:
        talked = talk(server, CLAUDE, "tools", True)
        talked.task("Compute it.")
        talked.step("ZeroDivisionError: division by zero")
    with WireServer(AnthropicWire(), [Said("42")]) as server:
        other = talk(server, CLAUDE, "tools", True, reasoning_effort="low")
        other.entries = talked.entries
        other.step()
    assert server.bodies[0]["thinking"]["type"] == "enabled"
    said, seen = server.bodies[0]["messages"][1:]
    assert said["content"] == [{"type": "text", "text": "I divide.\n\n```python\n1/0\n```"}]
    assert seen["content"][0]["text"] == "ZeroDivisionError: division by zero"


EFFORTS = {
    GPT: ("low", {"reasoning_effort": "low"}),
    CLAUDE: ("high", {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
    "anthropic/claude-opus-4-6": ("low", {"output_config": {"effort": "low"}}),
    GEMINI: ("low", {"thinkingLevel": "low", "includeThoughts": True}),
    "gemini/gemini-2.5-pro": ("low", {"thinkingBudget": 1024, "includeThoughts": True}),
}


@pytest.mark.parametrize("name", EFFORTS)
def test_the_effort_arrives_as_the_provider_wants_it(name: str) -> None:
    effort, wanted = EFFORTS[name]
    with WireServer(WIRES[name], [Said("Done.")]) as server:
        talked = talk(server, name, "fence", True, reasoning_effort=effort)
        talked.task("Go.")
        talked.step()
    (body,) = server.bodies
    thinking = body.get("generationConfig", {}).get("thinkingConfig")
    assert wanted.items() <= (thinking or body).items()


# Cost

PRICED = [GPT, CLAUDE, "gemini/gemini-2.5-pro"]


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", PRICED)
def test_cached_tokens_are_counted_at_their_own_price(name: str, streamed: bool) -> None:
    written = 200 if name == CLAUDE else 0
    counts = Counts(prompt=10_000, completion=500, cached=8_000, written=written, reasoning=0)
    with WireServer(WIRES[name], [Said("Done.", counts=counts)]) as server:
        talked = talk(server, name, "tools", streamed)
        talked.task("Go.")
        usage = talked.step().usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (10_000, 500)
    assert usage.cached_tokens == 8_000
    price = litellm_module().get_model_info(name)
    wanted = (
        (2_000 - written) * price["input_cost_per_token"]
        + 8_000 * price["cache_read_input_token_cost"]
        + written * (price["cache_creation_input_token_cost"] or 0)
        + 500 * price["output_cost_per_token"]
    )
    assert usage.cost == pytest.approx(wanted)


MARKING = {**WIRES, "openrouter/anthropic/claude-sonnet-4.5": ROUTER}


@pytest.mark.parametrize("reply_format", ["fence", "tools", "json"])
@pytest.mark.parametrize("name", MARKING)
def test_a_request_begins_with_the_whole_request_before_it(name: str, reply_format: Format) -> None:
    answers = script(reply_format, thinks=name != GPT, signs=name in SIGNED)
    with WireServer(MARKING[name], answers) as server:
        hold(talk(server, name, reply_format, False, reasoning_effort="low"))
    plain = [_without_marks(body) for body in server.bodies]
    for before, after in pairwise(plain):
        first, second = (_turns(body) for body in (before, after))
        assert json.dumps(second)[: len(json.dumps(first)) - 1] == json.dumps(first)[:-1]
        for key in (before.keys() | after.keys()) - {"messages", "contents"}:
            assert json.dumps(before[key]) == json.dumps(after[key])


def _without_marks(value: Any) -> Any:
    match value:
        case dict():
            kept = {key: _without_marks(each) for key, each in value.items()}
            kept.pop("cache_control", None)
            return kept
        case list():
            return [_without_marks(each) for each in value]
        case _:
            return value


@pytest.mark.parametrize("reply_format", ["fence", "tools", "json"])
@pytest.mark.parametrize("name", MARKING)
def test_claude_finds_marked_what_the_request_before_it_marked_last(
    name: str, reply_format: Format
) -> None:
    answers = script(reply_format, thinks=name != GPT, signs=name in SIGNED)
    with WireServer(MARKING[name], answers) as server:
        hold(talk(server, name, reply_format, False))
    marked = [_marked(body) for body in server.bodies]
    if "claude" not in name:
        assert not any(marked)
        return
    for body, places in zip(server.bodies, marked, strict=True):
        assert places[-1] == len(_turns(body)) - 1
        assert json.dumps(body).count("cache_control") <= 4
        system = body.get("system") or body["messages"][0]["content"]
        assert "cache_control" in system[-1]
    for before, after in pairwise(marked):
        assert before[-1] in after


def _marked(body: Body) -> list[int]:
    turns = enumerate(_turns(body))
    return [number for number, turn in turns if "cache_control" in json.dumps(turn)]


# What is odd in a reply


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", WIRES)
def test_the_same_call_twice_in_a_reply_is_answered_once_each_or_together(
    name: str, streamed: bool
) -> None:
    calls = (python("f()", "call_1", "c2ln"), python("f()", "call_2"))
    with WireServer(WIRES[name], [Said(calls=calls), Said("Done.")]) as server:
        talked = talk(server, name, "tools", streamed)
        talked.task("Go.")
        assert len(talked.step("seen").calls) == 2
        talked.step()
    assert "seen" in json.dumps(server.bodies[1])


def test_ids_that_a_server_uses_again_are_told_apart() -> None:
    same = Said(calls=(python("1", "functions.python:0"),))
    with WireServer(OpenAIWire(), [same, same, Said("Done.")]) as server:
        talked = talk(server, "openai/local", "tools", True)
        talked.task("Go.")
        talked.step("1")
        talked.step("2")
        talked.step()
    asked = [m["tool_calls"][0]["id"] for m in server.bodies[2]["messages"] if "tool_calls" in m]
    assert asked == ["functions.python:0", "functions.python:0_2"]


# Audio and video

WAV, MP4 = "data:audio/x-wav;base64,UklGRg==", "data:video/mp4;base64,AAAA"


def test_sound_goes_to_an_openai_model_as_input_audio() -> None:
    with WireServer(OpenAIWire(media=(AUDIO,)), [Said("A bell.")]) as server:
        talked = talk(server, "openai/gpt-audio", "fence", True)
        talked.task("What is it?", WAV)
        talked.step()
    part = server.bodies[0]["messages"][1]["content"][1]
    assert part["input_audio"] == {"data": "UklGRg==", "format": "wav"}


def test_video_goes_to_openai_compatible_servers_as_its_address() -> None:
    with WireServer(OpenAIWire(media=(VIDEO,), more=("usage",)), [Said("A cat.")]) as server:
        talked = talk(server, "openrouter/qwen/qwen3-vl", "fence", True)
        talked.task("What is it?", MP4)
        talked.step()
    assert server.bodies[0]["messages"][1]["content"][1]["video_url"] == {"url": MP4}


def test_sound_and_video_go_to_gemini_as_they_are() -> None:
    with WireServer(GeminiWire(), [Said("A bell.")]) as server:
        talked = talk(server, "gemini/gemini-2.5-pro", "fence", True)
        talked.task("What is it?", WAV, MP4, PNG)
        talked.step()
    _, *parts = server.bodies[0]["contents"][0]["parts"]
    kinds = [part["inline_data"]["mime_type"] for part in parts]
    assert kinds == ["audio/wav", "video/mp4", "image/png"]


TAKEN = [
    ("gemini/gemini-3-pro-preview", "video/mp4", True),
    ("gemini/gemini-3-pro-preview", "audio/wav", True),
    ("anthropic/claude-sonnet-4-5", "image/png", True),
    ("anthropic/claude-sonnet-4-5", "audio/wav", False),
    ("openai/gpt-5", "video/mp4", False),
    ("deepseek/deepseek-chat", "image/png", False),
    ("openai/local", "image/png", True),
    ("openai/local", "audio/wav", False),
]


@pytest.mark.parametrize(("name", "mime", "is_taken"), TAKEN)
def test_a_file_that_the_model_does_not_take_is_refused(
    name: str, mime: str, is_taken: bool
) -> None:
    if is_taken:
        check_media(name, [mime])
        return
    with pytest.raises(ModelError, match=f"takes no .*{mime}") as caught:
        check_media(name, [mime])
    assert caught.value.model == name


def test_thinking_does_not_go_back_behind_other_words_than_it_was_made_behind() -> None:
    name = "anthropic/claude-opus-4-6"
    model = {"tools": TOOLS, "reply_format": "tools", "params": {"reasoning_effort": "low"}}
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Go."}]
    for number in range(2):
        reader = ReplyReader(name=name, tools=TOOLS, request=build(name, messages, **model))
        thinking = [{"type": "thinking", "thinking": "Hm.", "signature": f"c2ln{number}"}]
        message = {"role": "assistant", "content": "Well.", "thinking_blocks": thinking}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reader.whole(litellm_module().ModelResponse(choices=[choice]))
        said = {"role": "assistant", "content": reader.text, "thinking_blocks": [*reader.signed]}
        messages += [said, {"role": "user", "content": f"{number}"}]
    kept = [m for m in build(name, messages, **model)["messages"] if "thinking_blocks" in m]
    assert [m["thinking_blocks"][0]["signature"] for m in kept] == ["c2ln0", "c2ln1"]
    messages[3] = {"role": "user", "content": "[cut]"}
    kept = [m for m in build(name, messages, **model)["messages"] if "thinking_blocks" in m]
    assert [m["thinking_blocks"][0]["signature"] for m in kept] == ["c2ln0"]
    messages[0] = {"role": "system", "content": "Another."}
    assert "thinking_blocks" not in json.dumps(build(name, messages, **model))


def test_figures_of_a_run_do_not_go_to_a_model_that_is_known_to_take_none() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image_url", "image_url": {"url": PNG}},
            ],
        },
    ]
    for name, is_sent in (("openai/gpt-3.5-turbo", False), ("openai/gpt-4o", True)):
        sent = build(name, messages, params={})["messages"]
        assert ("image_url" in json.dumps(sent)) is is_sent
        assert ("[figure]" in json.dumps(sent)) is not is_sent
