"""Whole runs in each format with each provider's wire: asked, kept, resumed and executed again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from kernel_agent.agent import Agent, Run
from kernel_agent.differences import diff
from kernel_agent.errors import ModelError
from kernel_agent.exporting import export
from kernel_agent.kernel import Kernel
from kernel_agent.model import LiteLLM
from kernel_agent.replay import replay
from kernel_agent.resuming import fork, resume
from kernel_agent.steps import Cut, Format, Plan
from kernel_agent.transcript import Transcript
from kernel_agent.transcript.messages import REFUSED, TOGETHER
from tests.openai_server import OpenAIServer, Status
from tests.wire.answers import Call, Said
from tests.wire.anthropic_wire import AnthropicWire
from tests.wire.gemini_wire import GeminiWire
from tests.wire.openai_wire import OpenAIWire
from tests.wire.server import Body, Wire, WireServer

# pydantic's word to litellm, which silences it except where pytest listens.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the")

GPT, CLAUDE, GEMINI = "openai/gpt-5", "anthropic/claude-sonnet-4-5", "gemini/gemini-3-pro-preview"
BINDING = "anthropic/claude-opus-4-6"  # its thinking is worth nothing behind other words
WIRES: dict[str, Wire] = {
    GPT: OpenAIWire(),
    CLAUDE: AnthropicWire(),
    GEMINI: GeminiWire(is_strict=True),
}
slow = pytest.mark.slow
FORMATS: list[Format] = ["fence", "tools", "json"]
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
DEFAULT = [(GPT, "json"), (CLAUDE, "tools"), (GEMINI, "fence")]
EACH = [
    pytest.param(name, form, marks=[] if (name, form) in DEFAULT else slow)
    for name in WIRES
    for form in FORMATS
]
FIGURE = f"""\
from base64 import b64decode
from IPython.display import Image
Image(b64decode("{PIXEL}"))"""
SHELL = "```bash\nls\n```"  # of no use in any format


def search(query: str) -> str:
    """What the web says.

    Args:
        query: what to look for
    """
    return f"{query} is 42"


def source_of(call: Call) -> str:
    """The code that a call stands for."""
    arguments = dict(call.arguments)
    if call.name == "python":
        return str(arguments["code"])
    return f"{call.name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


class Voice:
    """What a model says in its format, with the reasoning and the signatures of its provider."""

    def __init__(self, name: str, reply_format: Format) -> None:
        self.name, self.reply_format = name, reply_format
        self.number = 0

    def says(self, text: str, *calls: Call | str) -> Said:
        """A reply; a call that is a text is one of `python`."""
        self.number += 1
        own = [
            replace(Call("python", {"code": call}) if isinstance(call, str) else call)
            for call in calls
        ]
        own = [replace(call, id=f"call_{self.number}_{n}") for n, call in enumerate(own)]
        if self.name == GPT:
            said = Said(text)
        else:
            said = Said(text, f"Hm, {self.number} …", f"c2lnbg{self.number:02}")
        if self.reply_format == "tools":
            if own and self.name == GEMINI:
                own[0] = replace(own[0], signature=f"Y2FsbA{self.number:02}")
            return replace(said, calls=tuple(own))
        code = "\n\n".join(map(source_of, own))
        if self.reply_format == "json":
            return replace(said, text=json.dumps({"thought": text, "code": code}))
        return replace(said, text=text + (f"\n\n```python\n{code}\n```" if code else ""))

    def blunders(self) -> Said:
        if self.reply_format == "tools":
            return self.says("", Call("browse", {"url": "x"}), "never = 1")
        return replace(self.says(""), text=SHELL)


Start = Callable[..., Agent]


@pytest.fixture
def start(tmp_path: Path, lent_kernel: Kernel) -> Start:
    """Makes an agent of a server and a voice."""

    def start(server: WireServer, voice: Voice, **options: Any) -> Agent:
        options = {"folder": tmp_path / "runs", "kernel": lent_kernel, "tools": [search]} | options
        return Agent(options.pop("model", None) or model_of(server, voice), **options)

    return start


def model_of(server: WireServer, voice: Voice, **params: Any) -> LiteLLM:
    params = {"reasoning_effort": "low"} | params
    return LiteLLM(
        voice.name,
        retries=0,
        reply_format=voice.reply_format,
        api_base=server.url,
        api_key="sk-test",
        **params,
    )


def long_script(voice: Voice) -> list[Said]:
    """Three tasks with plans before the first step and after the third; see `hold`."""
    one = [
        voice.says("1. Divide. 2. Search."),  # the plan
        voice.says("I divide.", "1 / 0"),
        voice.says("", "x = 6 * 7", Call("search", {"query": "a b"})),
        voice.blunders(),
        voice.says("1. Show it."),
        voice.says("I draw.", FIGURE),
        voice.says("It is 42.", "final_answer(x)"),
    ]
    two = [
        voice.says("1. Search again."),
        voice.says("I search.", Call("search", {"query": 'it\'s\n"new"'})),
        voice.says("It is **42**."),
    ]
    three = [
        voice.says("1. Count."),
        *(voice.says(f"I count to {n}.", f"n = {n}") for n in range(3)),
        voice.says("1. Go on."),
        *(voice.says(f"I count to {n}.", f"n = {n}") for n in range(3, 5)),
        voice.says("About 4.", "n = 5"),  # the closing one, whose call is not run
    ]
    four = [voice.says("1. Say it."), voice.says("The last n.", "final_answer(n)")]
    return [*one, *two, *three, *four]


def hold(agent: Agent) -> list[Run]:
    tasks = ["Compute it.", "And again?", "Count.", "How far?"]
    return [agent.run(task) for task in tasks]


@pytest.mark.parametrize(
    "listens", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["streamed", "whole"]
)
@pytest.mark.parametrize(("name", "reply_format"), EACH)
def test_a_long_run_is_asked_kept_and_told_rightly(
    start: Start, name: str, reply_format: Format, listens: bool
) -> None:
    voice = Voice(name, reply_format)
    heard: list[Any] = []
    with WireServer(WIRES[name], long_script(voice)) as server:
        options = {"listener": heard.append} if listens else {}
        with start(server, voice, plan_every=3, max_steps=5, **options) as agent:
            runs = hold(agent)
    last = runs[-1].transcript
    assert [run.answer for run in runs] == [42, "It is **42**.", "About 4.", 4]
    assert [str(run.outcome) for run in runs] == [
        "answered",
        "answered",
        "answered at max_steps with what was known by then",
        "answered",
    ]
    assert len(server.bodies) == voice.number
    first = [step.result.source if step.result else None for step in last.steps[:5]]
    shown = "search(query='a b')"
    assert first == ["1 / 0", f"x = 6 * 7\n\n{shown}", None, FIGURE, "final_answer(x)"]
    assert last.steps[5].result is not None
    assert last.steps[5].result.source == "search(query='it\\'s\\n\"new\"')"
    assert "It was not run" in json.dumps(server.bodies[-1]) or reply_format != "tools"
    assert sum(isinstance(entry, Plan) for entry in last.entries) == 6
    assert all(last.steps[place].observation.images for place in [3])
    assert last.path is not None
    loaded = Transcript.load(last.path)
    assert loaded.entries == last.entries
    assert loaded.messages() == last.messages()
    assert loaded.problems == ()
    assert_prefixes(server.bodies)


def assert_prefixes(bodies: list[Body]) -> None:
    """Each request begins with the whole request before it, but for cache markers."""
    plain = [_without_marks(body) for body in bodies]
    for before, after in pairwise(plain):
        first, second = (json.dumps(_turns(body)) for body in (before, after))
        assert second[: len(first) - 1] == first[:-1]
        for key in (before.keys() | after.keys()) - {"messages", "contents"}:
            assert json.dumps(before[key]) == json.dumps(after[key])


def _turns(body: Body) -> Any:
    return body.get("messages") or body["contents"]


def _without_marks(value: Any) -> Any:
    match value:
        case dict():
            return {k: _without_marks(v) for k, v in value.items() if k != "cache_control"}
        case list():
            return [_without_marks(each) for each in value]
    return value


# What stops a native call


def results_of(run: Run) -> list[str]:
    """The results of calls that the model was sent."""
    messages = run.transcript.messages()
    return [message["content"] for message in messages if message["role"] == "tool"]


@pytest.mark.parametrize("name", WIRES)
def test_what_was_refused_edited_or_checked_is_told_as_the_result_of_its_call(
    start: Start, name: str
) -> None:
    voice = Voice(name, "tools")
    decisions: Iterator[Any] = iter([False, "x = 2", True, True, True])
    script = [
        voice.says("I delete.", "x = 0", Call("search", {"query": "a"})),
        voice.says("I set it.", "x = 1"),
        voice.says("", "final_answer(x)"),
        voice.says("", "final_answer('x')"),
        voice.says("", "final_answer(x + 1)"),
    ]
    with WireServer(WIRES[name], script) as server:
        options = {"approve": lambda _: next(decisions), "check": too_small}
        with start(server, voice, **options) as agent:
            run = agent.run("What?", answer_type=int)
    assert run.answer == 3
    other, refused, edited, *unfit, _ = results_of(run)
    assert other == REFUSED
    assert "Your code was not run." in refused
    assert "The user changed your code" in edited
    assert ["It must be 3." in text for text in unfit] == [True, False]
    assert "The answer was not taken" in unfit[1]
    assert Transcript.load(run.path).messages() == run.transcript.messages()


def too_small(answer: Any, transcript: Transcript) -> str:
    return "" if answer == 3 else "It must be 3."


@pytest.mark.parametrize("name", WIRES)
def test_calls_that_cannot_be_used_are_not_told_to_have_run(start: Start, name: str) -> None:
    voice = Voice(name, "tools")
    script = [
        voice.says("", "x = 1", Call("browse", {"url": "x"})),
        voice.says("", "x = 1"),
        voice.says("One."),
    ]
    with WireServer(WIRES[name], script) as server, start(server, voice) as agent:
        run = agent.run("What?")
    first, second, third = results_of(run)
    assert first == REFUSED
    assert "There is no tool 'browse'. Nothing was run." in second
    assert "x: 1" in third


@pytest.mark.parametrize(
    "name", [CLAUDE, *(pytest.param(one, marks=slow) for one in (GPT, GEMINI))]
)
def test_an_interrupted_cell_and_a_dead_kernel_are_told_as_results_of_calls(
    start: Start, tmp_path: Path, name: str
) -> None:
    voice = Voice(name, "tools")
    script = [
        voice.says("", "x = 1"),
        voice.says("", "import time\ntime.sleep(60)"),
        voice.says("", "import os\nos._exit(7)", Call("search", {"query": "a"})),
        voice.says("", "final_answer(x)"),
    ]
    with (
        WireServer(WIRES[name], script) as server,
        start(server, voice, cell_timeout=0.3) as agent,
    ):
        run = agent.run("What?")
    assert run.answer == 1
    _, interrupted, together, died, _ = results_of(run)
    assert "interrupted" in interrupted
    assert together == TOGETHER
    assert "The kernel was restarted." in died
    assert [step.result.status for step in run.transcript.steps if step.result] == [
        "ok",
        "interrupted",
        "died",
        "ok",
    ]


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("answer", ["python", "final_answer"])
def test_an_answer_that_a_closing_call_spells_out_is_taken_and_nothing_is_run(
    start: Start, name: str, answer: str
) -> None:
    voice = Voice(name, "tools")
    call = Call("final_answer", {"value": "It is 1."})
    if answer == "python":
        call = Call("python", {"code": "x = 2\nfinal_answer('It is 1.')"})
    script = [voice.says("", "x = 1"), voice.says("", call)]
    with WireServer(WIRES[name], script) as server, start(server, voice, max_steps=1) as agent:
        run = agent.run("What?")
    assert (run.answer, str(run.outcome.limit)) == ("It is 1.", "max_steps")
    assert run.transcript.steps[-1].result is None
    assert Transcript.load(run.path).answer == "It is 1."


# Runs that go on


CHANGES = [
    pytest.param(name, one, other, marks=[] if name == GPT and one != other else slow)
    for name in WIRES
    for one in FORMATS
    for other in FORMATS
]


def cut_off(notebook: Path, number: int) -> None:
    """Makes step `number` look as it does on disk while its cell runs, and drops what follows."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    cells = content["cells"]
    end = next(i for i, cell in enumerate(cells) if cell["id"] == f"step-{number}")
    cells[end + 1 :] = []
    known = cells[end]["metadata"]["kernel_agent"]
    known["status"] = "running"
    known.pop("observation")
    content["metadata"]["kernel_agent"]["run"]["outcome"] = None
    content["metadata"]["kernel_agent"]["run"]["outcomes"] = [None]
    notebook.write_text(json.dumps(content), encoding="utf-8")


def killed(start: Start, name: str, reply_format: Format) -> tuple[Path, list[Said]]:
    """A run that was killed in its second cell, and what its model had said."""
    voice = Voice(name, reply_format)
    script = [
        voice.says("I set x.", "x = 40"),
        voice.says("I search.", "y = x + 1", Call("search", {"query": "a"})),
        voice.says("Done.", "final_answer(y)"),
    ]
    with WireServer(WIRES[name], script) as server, start(server, voice) as agent:
        path = agent.run("How much?").path
    assert path is not None
    cut_off(path, 2)
    return path, script[:2]


@pytest.mark.parametrize(("name", "reply_format", "then"), CHANGES)
def test_a_killed_run_goes_on_in_any_format(
    start: Start, lent_kernel: Kernel, name: str, reply_format: Format, then: Format
) -> None:
    path, known = killed(start, name, reply_format)
    voice = Voice(name, then)
    voice.number = 5
    script = [voice.says("Once more.", "y = x + 2"), voice.says("", "final_answer(y)")]
    with WireServer(WIRES[name], script) as server:
        server.known += known
        lent_kernel.execute("%reset -f", counted=False)
        options = {"model": model_of(server, voice), "kernel": lent_kernel, "tools": [search]}
        with resume(path, **options) as agent:
            run = agent.run()
    assert run.answer == 42
    assert_prefixes(server.bodies)
    sent = json.dumps(server.bodies[0])
    assert "How much?" in sent
    assert "The run's process ended while this cell was running" in sent
    is_native = any(word in sent for word in ('"tool_calls"', '"tool_use"', '"function_call"'))
    assert is_native == (reply_format == then == "tools")
    loaded = Transcript.load(path)
    assert loaded.reply_format == then
    assert loaded.system == run.transcript.system
    told = {"fence": "then one code block", "tools": "one call of the tool", "json": "JSON object"}
    assert told[then] in loaded.system
    assert loaded.messages() == run.transcript.messages()


@pytest.mark.parametrize(("name", "reply_format"), EACH)
def test_after_an_error_of_the_model_the_run_goes_on_where_it_stopped(
    start: Start, lent_kernel: Kernel, name: str, reply_format: Format
) -> None:
    voice = Voice(name, reply_format)
    before = [voice.says("1. Look."), voice.says("I set x.", "x = 40")]
    with WireServer(WIRES[name], before) as server, start(server, voice, plan_every=1) as agent:
        with pytest.raises(ModelError, match="the script has ended"):
            agent.run("How much?")
        path = agent.transcript.path
        bodies = [*server.bodies]
        server.problems.clear()  # that was the plan
    assert str(Transcript.load(path).outcome).startswith("failed")
    after = [voice.says("1. Say it."), voice.says("It is 42.", "final_answer(x + 2)")]
    with WireServer(WIRES[name], after) as server:
        server.known += before
        lent_kernel.execute("%reset -f", counted=False)
        model = model_of(server, voice)
        with resume(path, model=model, kernel=lent_kernel, tools=[search]) as agent:
            run = agent.run()
    assert run.answer == 42
    assert json.dumps(_turns(server.bodies[0])) == json.dumps(_turns(bodies[-1]))
    assert_prefixes([*bodies[:-1], *server.bodies])
    assert len(run.transcript.steps) == 2


@pytest.mark.parametrize("reply_format", FORMATS)
def test_empty_replies_are_asked_again_and_take_no_step(start: Start, reply_format: Format) -> None:
    voice = Voice(GPT, reply_format)
    script = [Said(""), voice.says("I set x.", "x = 1"), Said(""), voice.says("One.")]
    with WireServer(WIRES[GPT], script) as server, start(server, voice, max_steps=2) as agent:
        run = agent.run("What?")
    assert (run.answer, len(run.transcript.steps)) == ("One.", 2)
    assert run.usage.prompt_tokens == 4 * 1000
    first, again, then, once_more = (json.dumps(_turns(body)) for body in server.bodies)
    assert (first, then) == (again, once_more)


def test_who_goes_on_with_another_model_is_named_in_its_replies(
    start: Start, lent_kernel: Kernel
) -> None:
    path, _ = killed(start, GPT, "tools")
    voice = Voice(CLAUDE, "fence")
    with WireServer(WIRES[CLAUDE], [voice.says("", "final_answer(x)")]) as server:
        options = {"kernel": lent_kernel, "tools": [search]}
        with resume(path, model=model_of(server, voice), **options) as agent:
            run = agent.run()
    for transcript in (run.transcript, Transcript.load(path)):
        assert [step.reply.model for step in transcript.steps] == ["", "", CLAUDE]
        assert transcript.about["model"]["name"] == GPT
    again = Voice(GPT, "tools")
    with (
        WireServer(WIRES[GPT], [again.says("", "final_answer(x + 1)")]) as server,
        resume(path, model=model_of(server, again), **options) as agent,
    ):
        run = agent.run("And one more?")
    assert run.answer == 41
    assert [step.reply.model for step in run.transcript.steps] == ["", "", CLAUDE, ""]
    assert "one call of the tool" in run.transcript.system


@pytest.mark.parametrize("then", FORMATS)
def test_a_fork_takes_another_way_in_another_format(
    start: Start, lent_kernel: Kernel, then: Format
) -> None:
    path, known = killed(start, CLAUDE, "tools")
    voice = Voice(CLAUDE, then)
    voice.number = 5
    with WireServer(WIRES[CLAUDE], [voice.says("", "final_answer(x + 3)")]) as server:
        server.known += known
        lent_kernel.execute("%reset -f", counted=False)
        model = model_of(server, voice)
        with fork(path, 1, model=model, kernel=lent_kernel, tools=[search]) as agent:
            run = agent.run()
    assert run.answer == 43
    assert run.path != path
    assert Transcript.load(path).reply_format == "tools"
    assert Transcript.load(run.path).reply_format == then


# What is done with the notebook


@pytest.fixture(scope="module")
def native_notebook(tmp_path_factory: pytest.TempPathFactory, kept_kernel: Kernel) -> Path:
    """A finished run of native calls with a plan, an error, two calls at once and a figure."""
    voice = Voice(CLAUDE, "tools")
    script = long_script(voice)[:7]
    folder = tmp_path_factory.mktemp("native")
    with WireServer(WIRES[CLAUDE], script) as server:
        options = {"kernel": kept_kernel, "tools": [search], "plan_every": 3, "folder": folder}
        with Agent(model_of(server, voice), **options) as agent:
            path = agent.run("Compute it.").path
    assert path is not None
    return path


def test_a_native_run_replays_and_is_written_anew(native_notebook: Path, tmp_path: Path) -> None:
    out = tmp_path / "anew.ipynb"
    replayed = replay(native_notebook, out=out)
    assert replayed.holds
    assert [cell.verdict for cell in replayed.cells] == ["same"] * 4
    was, now = Transcript.load(native_notebook), Transcript.load(out)
    assert now.messages() == was.messages()
    assert now.reply_format == "tools"
    assert [entry for entry in now.entries if isinstance(entry, Plan)] == [
        entry for entry in was.entries if isinstance(entry, Plan)
    ]


def test_a_native_run_differs_in_nothing_from_itself_written_anew(
    native_notebook: Path, tmp_path: Path
) -> None:
    out = tmp_path / "anew.ipynb"
    replay(native_notebook, out=out)
    found = diff(Transcript.load(native_notebook), Transcript.load(out))
    assert found.same, found.changes


@pytest.mark.slow
@pytest.mark.parametrize("form", ["html", "markdown", "script"])
def test_a_native_run_is_exported_like_any(
    native_notebook: Path, tmp_path: Path, form: str
) -> None:
    path = export(native_notebook, form, out=tmp_path / f"out.{form}")
    text = re.sub("<[^>]+>", "", path.read_text(encoding="utf-8"))
    assert re.search("search\\(query=('|&#39;)a b", text)
    assert "arguments" not in text
    assert "final_answer" in text


@pytest.mark.slow
def test_jupyter_executes_a_native_run(native_notebook: Path) -> None:
    notebook = nbformat.read(native_notebook, 4)
    nbformat.validate(notebook)
    folder = {"metadata": {"path": native_notebook.parent}}
    NotebookClient(notebook, allow_errors=True, resources=folder).execute()
    cells = {cell["id"]: cell for cell in notebook.cells}
    assert cells["step-1"].outputs[0].ename == "ZeroDivisionError"
    assert "ran outside of the kernel" in cells["step-2"].outputs[0].evalue
    assert "image/png" in cells["step-4"].outputs[0].data


# Windows, sub-agents, the first request, stand-ins


@pytest.mark.parametrize(("name", "reply_format"), EACH)
def test_a_run_goes_on_after_cuts_and_summaries(
    start: Start, name: str, reply_format: Format
) -> None:
    voice = Voice(name, reply_format)
    script = Cutting(voice)
    with WireServer(WIRES[name], ()) as server:
        server.answer = script.answering(server)  # type: ignore[method-assign]
        voice.name = {CLAUDE: BINDING}.get(name, name)
        model = model_of(server, voice, window=6_000)
        with start(server, voice, model=model, max_steps=30) as agent:
            run = agent.run("Print them.")
    assert run.answer == 12
    cuts = [entry for entry in run.transcript.entries if isinstance(entry, Cut)]
    assert any(cut.summary and "Twelve of them." in cut.summary for cut in cuts)
    asked = [entry.reply for entry in run.transcript.entries if getattr(entry, "reply", None)]
    assert len(asked) == len(server.bodies)
    assert run.usage.prompt_tokens == sum(reply.usage.prompt_tokens for reply in asked)
    assert run.path is not None
    assert Transcript.load(run.path).messages() == run.transcript.messages()


class Cutting:
    """Says twelve cells with long outputs, and a summary when it is asked for one."""

    def __init__(self, voice: Voice) -> None:
        self.voice, self.steps = voice, 0

    def answering(self, server: WireServer) -> Callable[..., Said | None]:
        original = server.answer

        def answer(path: str, headers: Any, body: Body) -> Said | None:
            said = self.next(json.dumps(_turns(body)[-1]))
            size = len(json.dumps(body)) // 4
            counts = replace(said.counts, prompt=size, completion=30)
            server._answers.append(replace(said, counts=counts))
            return original(path, headers, body)

        return answer

    def next(self, last: str) -> Said:
        if "Sum up the work" in last:
            return self.voice.says("Twelve of them.")
        self.steps += 1
        if self.steps > 12:
            return self.voice.says("Done.", "final_answer(n)")
        source = f"n = {self.steps}\nprint('some words of it ' * 150)" + "\n# some words" * 100
        if self.steps % 3:
            return self.voice.says(f"I print {self.steps}.", source)
        return self.voice.says("", source, Call("search", {"query": str(self.steps)}))


def test_a_sub_agent_is_called_natively(start: Start, tmp_path: Path) -> None:
    voice = Voice(CLAUDE, "tools")
    script = [
        voice.says("", Call("helper", {"task": "Six times seven?"})),
        voice.says("", "final_answer(6 * 7)"),
        voice.says("It is 42.", "final_answer(1)"),
    ]
    with WireServer(WIRES[CLAUDE], script) as server:
        helper = Agent(
            model_of(server, voice), cwd=tmp_path, name="helper", description="It multiplies."
        )
        with start(server, voice, agents=[helper]) as agent:
            run = agent.run("Ask.")
    first = run.transcript.steps[0].result
    assert first is not None
    assert first.source == "helper(task='Six times seven?')"
    assert "42" in results_of(run)[0]
    names = [tool["name"] for tool in server.bodies[0]["tools"]]
    assert names[0] == "python"
    assert "helper" in names
    assert run.usage.prompt_tokens == 3 * 1000


@pytest.mark.parametrize("plan_every", [None, 2])
@pytest.mark.parametrize("reply_format", FORMATS)
def test_the_first_request_that_is_shown_is_the_one_that_is_sent(
    start: Start, reply_format: Format, plan_every: int | None
) -> None:
    voice = Voice(GPT, reply_format)
    script = [voice.says("1. Say it.")] * bool(plan_every)
    script += [voice.says("", "final_answer(1)")]
    options = {"plan_every": plan_every, "instructions": "Be brief."}
    images = [f"data:image/png;base64,{PIXEL}"]
    with WireServer(WIRES[GPT], script) as server:
        with start(server, voice, **options) as agent:
            shown = agent.first_request("What?", images=images)
        with start(server, voice, **options) as agent:
            agent.run("What?", images=images)
    body = server.bodies[0]
    assert json.dumps(body["messages"]) == json.dumps(shown.messages)
    assert json.dumps(body.get("tools", [])) == json.dumps(shown.tools)
    assert all(json.dumps(body).count(PIXEL) == 1 for body in server.bodies)


@pytest.mark.parametrize("reply_format", FORMATS)
def test_who_stood_in_is_named_in_the_notebook_and_is_there_after_a_resume(
    tmp_path: Path, lent_kernel: Kernel, monkeypatch: pytest.MonkeyPatch, reply_format: Format
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    voice = Voice(GPT, reply_format)
    down = Status(503, "Down for today.")
    script = [voice.says("", "x = 40"), voice.says("", "final_answer(x)")]
    script += [voice.says("", "final_answer(x + 1)")]
    with OpenAIServer([down] * 3) as first, WireServer(WIRES[GPT], script) as second:
        options = {"retries": 0, "reply_format": reply_format}
        models = [LiteLLM(GPT, api_base=first.url, **options)]
        models += [LiteLLM("openai/gpt-4o", api_base=second.url, **options)]
        with Agent(models[0], fallbacks=models[1:], kernel=lent_kernel, folder=tmp_path) as agent:
            run = agent.run("What?")
        assert run.path is not None
        for transcript in (run.transcript, Transcript.load(run.path)):
            assert [step.reply.model for step in transcript.steps] == ["openai/gpt-4o"] * 2
        lent_kernel.execute("%reset -f", counted=False)
        with resume(run.path, kernel=lent_kernel) as agent:
            assert agent.run("And one more?").answer == 41
