"""The values of a run: what the user asked, what the model replied, what the code did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, Any]
"""A message as the chat completions API takes it: `role` and `content`."""

Output = dict[str, Any]
"""An output of a cell as nbformat 4.5 stores it: `output_type` and its fields."""

ANSWER_MIME = "application/vnd.kernel_agent.answer+json"
"""MIME type under which `final_answer(value)` publishes its value beside the value's own forms."""

Format = Literal["fence", "tools", "json"]
"""How a model writes its code: Markdown fences, native tool calls, or JSON that is guaranteed."""

CellStatus = Literal["ok", "error", "interrupted", "died"]
Limit = Literal["max_steps", "max_cost", "max_tokens", "max_seconds"]


@dataclass(frozen=True)
class Usage:
    """What a reply, or a whole run, has used. Adds up with `+`.

    `cached_tokens` are part of `prompt_tokens`, `reasoning_tokens` part of `completion_tokens`.
    `cost` is in USD, `None` where the price is unknown; a sum with an unknown part is unknown.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = 0.0
    model_seconds: float = 0.0
    kernel_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            None if self.cost is None or other.cost is None else self.cost + other.cost,
            self.model_seconds + other.model_seconds,
            self.kernel_seconds + other.kernel_seconds,
        )


@dataclass(frozen=True)
class RequestedCall:
    """A native tool call in a reply: `arguments` is JSON text, word for word as it came.

    `extra` is what the provider sent with it and wants back (a signature), as JSON.
    """

    id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One reply of the model, word for word and never edited.

    `reasoning` is what the provider sent apart from the text, `signed` the same as blocks that
    the provider wants back as they are (JSON). `finish_reason` is the API's (`"stop"`,
    `"length"`, ...), `None` where the provider gave none. `calls` are native tool calls. `model`
    names the model that replied if that is not the run's own: a fallback, or one that went on with
    the run.
    """

    text: str
    reasoning: str = ""
    finish_reason: str | None = "stop"
    usage: Usage = Usage()
    calls: tuple[RequestedCall, ...] = ()
    signed: tuple[Mapping[str, Any], ...] = ()
    model: str = ""


@dataclass(frozen=True)
class ToolCall:
    """A call of a host's function from a cell, as recorded.

    `arguments` (`{"args": […], "kwargs": {…}}`) and `result` are JSON as `border/codec.py` makes
    it of any value. `error` is `"ValueError: what it said"` if the call failed, empty otherwise.
    `seconds` is how long it took; `usage` what a sub-agent has used, and `transcript` the path of
    its notebook, relative to the folder of the run's own.
    """

    name: str
    arguments: Mapping[str, Any]
    result: Any = None
    error: str = ""
    seconds: float = 0.0
    usage: Usage = Usage()
    transcript: str = ""


@dataclass(frozen=True)
class CellResult:
    """What executing one cell did.

    `status` is `"ok"`, `"error"` (the code raised), `"interrupted"` or `"died"` (the kernel's
    process ended). `reason` says in a sentence why a cell was interrupted or the kernel died and
    what is left of its state; it is empty otherwise. `variables` are the names that the cell
    made or changed, each with a short summary (`"DataFrame 1461×6"`). `started` is in seconds
    since the epoch. `stopped_by` names what ended a cell that was stopped (`"interrupt"`,
    `"interrupt and wake-up"`, `"asynchronous exception"`, `"second interrupt"` or `"kill"`); it is
    empty if nobody stopped it. `inputs` are the answers to its calls of `input()` and
    `getpass()`, in order; None stands for a password, which is never kept. `tool_calls` are in
    the order in which they began.
    """

    source: str
    status: CellStatus = "ok"
    outputs: tuple[Output, ...] = ()
    execution_count: int | None = None
    seconds: float = 0.0
    started: float = 0.0
    reason: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    stopped_by: str = ""
    inputs: tuple[str | None, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def answer(self) -> Output | None:
        """The output of the cell's last `final_answer` call, if there was one."""
        for output in reversed(self.outputs):
            if ANSWER_MIME in output.get("data", ()):
                return output
        return None


@dataclass(frozen=True)
class Observation:
    """Exactly what the model was shown: `text`, and `images` as data URLs (`data:image/png;…`).

    `notices` is the end of the text that is not about what came out of the code: what was refused,
    what a new kernel holds, that a limit is reached. It stays when the text is shortened.
    """

    text: str
    images: tuple[str, ...] = ()
    notices: str = ""

    def message(self) -> Message:
        return user_message(self.text, self.images)


@dataclass(frozen=True)
class Task:
    """What the user asked.

    `text` is the user's own words; `prompt` is what the model was sent for them (the words, the
    preview of the data, the budget), with `images`, sounds and films as data URLs. `setup` is the
    source that was executed before the first step, empty if there was none.
    """

    text: str
    prompt: str
    images: tuple[str, ...] = ()
    setup: str = ""

    def messages(self) -> tuple[Message, ...]:
        return (user_message(self.prompt, self.images),)


@dataclass(frozen=True)
class Step:
    """A reply and what came of it.

    With `result` and `observation`, code ran; with `observation` alone, the reply was of no use
    and the observation says why; with neither, the reply is the answer. `said` is the part of
    the reply that goes back to the model (without drafts and made-up outputs). `thought` is
    the prose before and after the code, or the text of an answer. `refused` says why the code was
    not run (it is then in the `thought`), or why the answer was not taken; it is empty otherwise.
    """

    reply: Reply
    said: str
    thought: str = ""
    result: CellResult | None = None
    observation: Observation | None = None
    refused: str = ""

    @property
    def usage(self) -> Usage:
        """The reply's usage, what its cell's calls of sub-agents used, and the cell's seconds."""
        usage = self.reply.usage
        if self.result is None:
            return usage
        for call in self.result.tool_calls:
            usage += call.usage
        return usage + Usage(kernel_seconds=self.result.seconds)


@dataclass(frozen=True)
class Note:
    """What the model was told between two steps: `text`, as a message of the user's."""

    text: str

    def messages(self) -> tuple[Message, ...]:
        return (user_message(self.text),)


@dataclass(frozen=True)
class Plan:
    """A plan that the model was asked for between two steps; nothing of it was run.

    `asked` is what the model was sent for it, `said` the part of the reply that goes back to it
    (without drafts and code), `told` what it was told then, so that it goes on.
    """

    reply: Reply
    said: str
    asked: str
    told: str

    @property
    def usage(self) -> Usage:
        return self.reply.usage

    def messages(self) -> tuple[Message, ...]:
        said: Message = {"role": "assistant", "content": self.said}
        return (user_message(self.asked), said, user_message(self.told))


@dataclass(frozen=True)
class UserCell:
    """A code cell that the user wrote into the notebook, with what its outputs tell of it.

    `id` is the cell's in the notebook. The model hears of it in a task's prompt, if at all.
    """

    id: str
    result: CellResult

    def messages(self) -> tuple[Message, ...]:
        return ()


@dataclass(frozen=True)
class Cut:
    """From here on the model is shown less of what was before, so that its window holds it.

    Entries are counted from 0 over the whole transcript, but for the user's cells, which may be
    added and taken away at any time. The observations of the steps before entry `shortened` are
    shown as a line each. All that is before entry `summarised` is shown as the last task before
    the cut, if it is among it, and `summary`; 0 for none of it. `asked` is what the model was sent
    for a summary, `reply` what it said, None where nobody was asked.
    """

    shortened: int
    summarised: int = 0
    summary: str = ""
    asked: str = ""
    reply: Reply | None = None

    @property
    def usage(self) -> Usage:
        return self.reply.usage if self.reply else Usage()

    def messages(self) -> tuple[Message, ...]:
        """None of its own: it changes what stands for the entries before it."""
        return ()


Entry = Task | Step | Note | Plan | UserCell | Cut
"""What a transcript holds, in order."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `status`: `"answered"`, `"limit"` (a limit was reached and no answer came), `"interrupted"` by
    the user, or `"failed"` (`reason` says why). `limit` names the limit that was reached; with
    status `"answered"` it means that the answer is the best that was known by then.
    """

    status: Literal["answered", "limit", "interrupted", "failed"]
    limit: Limit | None = None
    reason: str = ""

    def __str__(self) -> str:
        match self:
            case Outcome("answered", None):
                return "answered"
            case Outcome("answered", limit):
                return f"answered at {limit} with what was known by then"
            case Outcome("limit", limit, ""):
                return f"ended at {limit} without an answer"
            case Outcome("limit", limit, reason):
                return f"ended at {limit} without an answer: {reason}"
            case Outcome(status, _, ""):
                return status
            case Outcome(status, _, reason):
                return f"{status}: {reason}"


@dataclass(frozen=True)
class Rebuilt:
    """What a kernel that was started anew holds again of a run's state.

    `back` are names of variables that cells made which were run again, `restored` those that came
    from a snapshot, `lost` those that had been there and are not any more. `differing` are the
    cells (`"step 3"`) whose outputs are not what they were. `reason` says why cells were not run
    again, or not all of them; it is empty if they were.
    """

    back: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    reason: str = ""


def user_message(text: str, images: tuple[str, ...] = ()) -> Message:
    """A user's message; with `images` (data URLs of any media) its content is a list of parts."""
    if not images:
        return {"role": "user", "content": text}
    parts = [_media_part(url) for url in images]
    return {"role": "user", "content": [{"type": "text", "text": text}, *parts]}


def _media_part(url: str) -> dict[str, Any]:
    """The part of a message that holds an image, a sound or a film, as litellm takes it."""
    mime, _, data = url.removeprefix("data:").partition(";base64,")
    kind, _, form = mime.partition("/")
    match kind:
        case "audio":
            form = {"mpeg": "mp3"}.get(form, form)
            return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
        case "video":
            return {"type": "file", "file": {"file_data": url}}
    return {"type": "image_url", "image_url": {"url": url}}
