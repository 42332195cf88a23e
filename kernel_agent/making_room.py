"""Makes room in the model's window: decides where to cut, and has the model sum up what goes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from kernel_agent.context import Marks, marks, next_tokens, tokens_of, where_to_cut
from kernel_agent.errors import ContextWindowExceededError
from kernel_agent.prompts import Prompts
from kernel_agent.reply import RunCode, Unusable, read_reply
from kernel_agent.steps import Cut, Entry, Format, Message, Note, Plan, Reply, Step, Task
from kernel_agent.syntax import parse
from kernel_agent.terminal import plain_text
from kernel_agent.transcript.messages import messages_of
from kernel_agent.transcript.shortening import without_user_cells

MAX_SUMMARY = 3_000  # characters
WORD = 10  # characters that a word of a summary has at most: it is full of names and numbers
MAX_PLAN = 1_500
MAX_VARIABLES = 1_500
MAX_FUNCTIONS = 600
MAX_STEP_LINE = 150
ROOMY = 12_000  # tokens of a window from which on these bounds hold; in smaller ones they shrink
MOST_OF_REFUSED = 0.85  # of a request that was too long: what a shorter one may have
LEAST_GAIN = 0.1  # of the window: less is not worth a cut while the request still fits
_CUT_OFF = frozenset(["length", "max_tokens"])

AskModel = Callable[[list[Message]], Reply]


def make_room(
    entries: Sequence[Entry],
    *,
    system: str,
    window: int | None,
    reply_format: Format,
    prompts: Prompts,
    ask: AskModel | None,
    language: str = "python",
    refused: bool = False,
) -> Cut | None:
    """The cut that a run of these `entries` needs before the next request, None if it needs none.

    `window` is how many tokens messages and reply may have together, None where it is not known:
    then nothing is cut until a request was `refused` as too long. One that was is cut to about
    half, whatever the numbers say; None means then that there is nothing left to cut.

    Where old steps have to go, `ask` is called with messages that end with the wish for a summary
    (`prompts/summary.md`); code in the reply is never run. What it raises passes through, but for
    ContextWindowExceededError: then the summary is made of what is known of the steps, as it is
    without `ask`.
    """
    own = without_user_cells(entries)
    if not refused and (window is None or (own and isinstance(own[-1], Cut))):
        return None
    messages = messages_of(system, own, native=reply_format == "tools")
    sent = next_tokens(messages, own)
    if refused:
        # If that is not little enough, it will be refused once more.
        bounds = Marks(full=sent // 2, aim=sent // 2, most=int(MOST_OF_REFUSED * sent))
    else:
        assert window is not None
        bounds = marks(window)
        if sent <= bounds.full:
            return None
    scale = sent / max(tokens_of(messages), 1)
    run = _Run(own, system, reply_format, prompts, ask, language, bounds, scale)
    cut = run.cut()
    gain = sent - run.tokens(cut)
    least = 1 if refused or sent > bounds.most else int(LEAST_GAIN * bounds.most)
    return run.summed_up(cut) if gain >= least else None


@dataclass(frozen=True)
class _Run:
    """A run that is to be cut; `scale` is what an estimated token was found to be worth."""

    entries: Sequence[Entry]
    system: str
    reply_format: Format
    prompts: Prompts
    ask: AskModel | None
    language: str
    bounds: Marks
    scale: float

    def tokens(self, cut: Cut, *more: Entry) -> int:
        """About how many tokens a request after `cut` would have."""
        return int(self.scale * tokens_of(self._messages(cut, *more)))

    def cut(self) -> Cut:
        """The cut that is needed, its summary made of what is known of the steps."""
        before = self._last_cut()
        steps = [place for place, entry in enumerate(self.entries) if isinstance(entry, Step)]
        shortened, summarised = where_to_cut(
            steps,
            len(self.entries),
            lambda shortened, summarised: self.tokens(self._trial(shortened, summarised)),
            bounds=self.bounds,
            before=(before.shortened, before.summarised),
        )
        cut = self._trial(shortened, summarised)
        return cut if summarised == before.summarised else self._fitting(cut, before)

    def summed_up(self, cut: Cut) -> Cut:
        """`cut` with the model's own summary, if it leaves out steps that were shown until now."""
        before = self._last_cut()
        if cut.summarised == before.summarised or self.ask is None:
            return cut
        words = max(int(MAX_SUMMARY * self._share) // WORD // 10 * 10, 20)
        asked = self.prompts.render(
            "summary", is_made=False, max_words=words, reply_format=self.reply_format
        )
        reply = self._asked(self.ask, cut, asked)
        if reply is None:
            return cut
        cut = replace(cut, asked=asked, reply=reply)
        if said := _summary(reply, self.language):
            cut = replace(cut, summary=self._told(cut.summarised, said))
        return self._fitting(cut, before)

    def _asked(self, ask: AskModel, cut: Cut, asked: str) -> Reply | None:
        """The reply to `asked`, after as much of what was shown as there is room for."""
        before = self._last_cut().summarised
        shorter = (self._trial(place, before) for place in (cut.shortened, len(self.entries)))
        forms = (None, *shorter, cut)
        for form in forms:
            messages = self._messages(form, Note(asked))
            if self.scale * tokens_of(messages) <= self.bounds.most:
                try:
                    return ask(messages)
                except ContextWindowExceededError:
                    continue
        return None

    def _messages(self, cut: Cut | None, *more: Entry) -> list[Message]:
        entries = (*self.entries, *([cut] if cut else []), *more)
        return messages_of(self.system, entries, native=self.reply_format == "tools")

    def _last_cut(self) -> Cut:
        cuts = (entry for entry in reversed(self.entries) if isinstance(entry, Cut))
        return next(cuts, Cut(0))

    def _trial(self, shortened: int, summarised: int) -> Cut:
        """A cut for which nobody was asked."""
        before = self._last_cut()
        if summarised == before.summarised:
            return Cut(shortened, summarised, before.summary)
        summary = self._told(summarised, self._known(before, summarised))
        return Cut(shortened, summarised, summary)

    def _fitting(self, cut: Cut, before: Cut) -> Cut:
        """`cut` with as much of its summary as there is room for; `before` is the one before it."""
        said = _summary(cut.reply, self.language) if cut.reply else ""
        said = said or self._known(before, cut.summarised)
        for share in (0.5, 0.25, 0.0):
            if self.tokens(cut) <= self.bounds.most:
                break
            cut = replace(cut, summary=self._told(cut.summarised, said, share=share))
        return cut

    def _told(self, summarised: int, said: str, *, share: float = 1.0) -> str:
        """What stands for the entries before `summarised`: what was `said` of them, and more."""
        share *= self._share
        number, plan = _last_plan(self.entries, summarised)
        return self.prompts.render(
            "summary",
            is_made=True,
            summary=_bounded(said, int(MAX_SUMMARY * share)),
            plan=_bounded(plan, int(MAX_PLAN * share)),
            plan_step=number,
            variables=_variables(self.entries, int(MAX_VARIABLES * share)),
            functions=_functions(self.entries, int(MAX_FUNCTIONS * share)),
        )

    @property
    def _share(self) -> float:
        """How much of the usual bounds a window of this size has room for."""
        return min(1.0, self.bounds.most / ROOMY)

    def _known(self, before: Cut, summarised: int) -> str:
        """What is known of the steps without asking: what they were for, and how they ended."""
        earlier = _summary(before.reply, self.language) if before.reply else ""
        earlier = _bounded(earlier, MAX_SUMMARY // 2)
        lines = list(_step_lines(self.entries, before.summarised if earlier else 0, summarised))
        room = MAX_SUMMARY - len(earlier)
        while lines and sum(map(len, lines)) + len(lines) > room:
            lines = lines[len(lines) // 4 + 1 :]  # the newest are worth most
        return "\n\n".join(filter(None, [earlier, "\n".join(lines)]))


def _summary(reply: Reply, language: str) -> str:
    """What the model says as a summary, empty if that is of no use."""
    match read_reply(replace(reply, calls=()), language=language):
        case RunCode(thought):
            return thought.strip()
        case Unusable(_, said):
            is_cut_off = reply.finish_reason in _CUT_OFF and said in reply.text
            return f"{said} …" if is_cut_off else ""
        case answer:
            return answer.text.strip()


def _last_plan(entries: Sequence[Entry], summarised: int) -> tuple[int, str]:
    """The last plan of the last task, if it is left out, and before which of its steps it was made.

    Empty if it is not left out, or without one.
    """
    number, last = 1, (0, "")
    for place, entry in enumerate(entries):
        match entry:
            case Task():
                number, last = 1, (0, "")
            case Plan(said=said):
                last = (number, said) if place < summarised else (0, "")
            case Step():
                number += 1
    return last


def _variables(entries: Sequence[Entry], max_chars: int) -> str:
    """The variables that cells made, each as it was last seen.

    Where not all can be told, those that changed last are told with what they are, and of the
    others the names, the first ones first: they are most often the data.
    """
    known: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, Step) and entry.result:
            for name, kind in entry.result.variables.items():
                known.pop(name, None)
                known[name] = kind
    told = [_bounded(_one_line(f"{name}: {kind}"), 100) for name, kind in known.items()]
    whole = ", ".join(told)
    if len(whole) <= max_chars or not max_chars:
        return whole if max_chars else ""
    last = _fitting_items(reversed(told), max_chars // 2)
    others = [_bounded(_one_line(name), 100) for name in [*known][: len(known) - len(last)]]
    first = _fitting_items(others, max_chars // 2)
    left_out = len(others) - len(first)
    return ", ".join([*first, *([f"… {left_out} more …"] if left_out else []), *reversed(last)])


def _functions(entries: Sequence[Entry], max_chars: int) -> str:
    """The functions that cells have defined, with their parameters; the last ones if not all."""
    known: dict[str, str] = {}
    for entry in entries:
        if isinstance(entry, Step) and entry.result:
            for name, signature in _defined(entry.result.source):
                known.pop(name, None)
                known[name] = signature
    return ", ".join(reversed(_fitting_items(reversed(known.values()), max_chars)))


def _defined(source: str) -> Iterator[tuple[str, str]]:
    """The functions and classes that a cell defines at its top, with their parameters."""
    tree = parse(source)
    for node in tree.body if tree else ():
        match node:
            case (
                ast.FunctionDef(name=name, args=given) | ast.AsyncFunctionDef(name=name, args=given)
            ):
                yield name, f"{name}({ast.unparse(given)})"
            case ast.ClassDef(name=name):
                yield name, f"class {name}"


def _fitting_items(items: Iterable[str], max_chars: int) -> list[str]:
    """The first of the `items` that have room in `max_chars`, a comma after each."""
    fitting: list[str] = []
    for item in items:
        max_chars -= len(item) + 2
        if max_chars < 0:
            break
        fitting.append(item)
    return fitting


def _step_lines(entries: Sequence[Entry], start: int, end: int) -> Iterator[str]:
    number = 0
    for place, entry in enumerate(entries):
        if isinstance(entry, Task):
            number = 0
            if start <= place < end:
                yield f"- The user's task: {_bounded(_one_line(entry.text), MAX_STEP_LINE)}"
        if not isinstance(entry, Step):
            continue
        number += 1
        if start <= place < end:
            how = f"ended with status {entry.result.status}" if entry.result else "nothing was run"
            thought = _bounded(_one_line(entry.thought), MAX_STEP_LINE)
            yield f"- Step {number}, {how}: {thought}" if thought else f"- Step {number}: {how}"


def _one_line(text: str) -> str:
    return " ".join(plain_text(text).split())


def _bounded(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return text[: most - 2].rstrip() + " …" if most > 2 else ""
