"""A language model of Hugging Face's that runs in this process, through transformers and torch."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from kernel_agent.chat_text import chat_form, plain_text
from kernel_agent.closing import BlockWatch
from kernel_agent.errors import ContextWindowExceededError, ModelError
from kernel_agent.events import Listener, ReplyText
from kernel_agent.model_errors import MAX_REASON
from kernel_agent.model_secrets import public, redact
from kernel_agent.steps import Message, Reply, Usage

NEXT_TURN = "\n\nUser:\n"
"""What ends the reply of a model without a chat template: it begins to write the user's part."""

_OURS = (
    "attention_mask input_ids inputs max_length num_beams num_return_sequences past_key_values "
    "return_dict_in_generate stopping_criteria streamer"
).split()


class TransformersModel:
    """A model of Hugging Face's in this process: a name on the Hub, or a folder with its files.

    It is called `"transformers/"` and that name. `device` is `"cuda"`, `"cuda:1"`, `"mps"`,
    `"cpu"`, or `"auto"`: the first of them that is there. `dtype` is a name of torch's, or
    `"auto"`: as the weights are stored. `max_new_tokens` bounds a reply. `temperature` is 0 for
    the likeliest token each time, None for what the model's makers set. `generate` goes to
    transformers' `generate` as it is: `top_p`, `repetition_penalty`, ... `token` is for models on
    the Hub that are not for everybody, and is kept nowhere else.

    A model that is not on this machine is downloaded with the first use, without a word and not
    at all with `local_files_only`; `hf download NAME` shows how far it is. No code that comes
    with a model is run. Text only: a vision model is not shown images either.

    Messages become text by the model's chat template. If the template wants user and assistant to
    take turns, neighbours of the same role are merged; if it has no system role, the system
    prompt goes before the first user message. A model without a template is sent
    `System:`, `User:` and `Assistant:`, each on a line of its own before the text.

    Raises TypeError for a parameter in `generate` that is not the caller's to set.
    """

    takes_images = False

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_new_tokens: int = 4096,
        temperature: float | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        **generate: Any,
    ) -> None:
        if taken := sorted(set(_OURS) & generate.keys()):
            raise TypeError(
                f"{', '.join(taken)} cannot be set: a reply is one text, read as it grows"
            )
        self.name = f"transformers/{name_or_path}"
        self._source = str(name_or_path)
        self._device = device
        self._dtype = dtype
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._hub = {"token": token, "local_files_only": local_files_only}
        self._generate = generate
        self._loading = threading.Lock()
        self._generating = threading.Lock()
        self._loaded: _Loaded | None = None

    def prepare(self) -> None:
        """Start loading the model in the background and return at once; `complete` waits for it."""
        threading.Thread(target=self._prepare, name="load-transformers", daemon=True).start()

    def check(self) -> None:
        """Load the model. Raises ModelError if that does not go: it says why."""
        self._load()

    def about(self) -> dict[str, Any]:
        parameters = {
            "device": self._device,
            "dtype": self._dtype,
            "max_new_tokens": self._max_new_tokens,
            **({} if self._temperature is None else {"temperature": self._temperature}),
            **self._generate,
        }
        return {"name": self.name, "parameters": public(parameters)}

    def complete(
        self,
        messages: Sequence[Message],
        listener: Listener | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Reply:
        """The model's reply; see `Model.complete`. It ends with its code block.

        Only one is generated at a time; another waits. Usage is counted by the tokenizer and costs
        nothing; `model_seconds` is without the loading. `finish_reason` is `"length"` if
        `max_new_tokens` or the context window was reached, else `"stop"`.

        Raises ContextWindowExceededError if the messages leave no room for a reply, and ModelError
        if the model cannot be loaded, its template takes no such messages, or generating fails.
        """
        loaded = self._load()
        started = time.monotonic()
        with self._generating:
            inputs = self._inputs(loaded, messages)
            length = inputs["input_ids"].shape[1]
            room = self._room(loaded, length)
            turn = "" if loaded.tokenizer.chat_template else NEXT_TURN
            # Some templates begin the draft themselves: the reply holds only its end.
            drafts = _decode(loaded.tokenizer, inputs["input_ids"][0, -8:]).rstrip()
            watch = BlockWatch(drafts=drafts.endswith("<think>"))
            reading = _Reading(loaded.tokenizer, length, listener, watch, turn)
            try:
                loaded.network.generate(**inputs, **self._options(loaded, room, reading))
            except Exception as error:  # torch raises many kinds: no memory, a broken kernel, ...
                raise ModelError(self.name, self._reason(error)) from error
        text, used = reading.end(), reading.length
        if reading.raised is not None:
            raise reading.raised
        is_whole = reading.is_stopped or used < room or reading.last in _end_ids(loaded)
        seconds = time.monotonic() - started
        usage = Usage(prompt_tokens=length, completion_tokens=used, model_seconds=seconds)
        return Reply(text, finish_reason="stop" if is_whole else "length", usage=usage)

    def _inputs(self, loaded: _Loaded, messages: Sequence[Message]) -> dict[str, Any]:
        tokenizer = loaded.tokenizer
        if not tokenizer.chat_template:
            tokens = tokenizer(plain_text(messages), return_tensors="pt")
        else:
            try:
                form = chat_form(tokenizer, messages)
            except TemplateError as error:
                reason = f"its chat template does not take the messages: {error}."
                raise ModelError(self.name, reason) from error
            tokens = tokenizer.apply_chat_template(
                form,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                # What data and outputs hold must not end a message; older versions pass it over.
                sanitize_control_tokens=True,
            )
        names = ("input_ids", "attention_mask")
        return {name: tokens[name].to(loaded.network.device) for name in names}

    def _room(self, loaded: _Loaded, length: int) -> int:
        """How many tokens the reply to a prompt of `length` may have."""
        if loaded.window is None:
            return self._max_new_tokens
        if length >= loaded.window:
            raise ContextWindowExceededError(
                self.name,
                f"the messages are {length:,} tokens long and its context window holds "
                f"{loaded.window:,}, the reply included.",
            )
        return min(self._max_new_tokens, loaded.window - length)

    def _options(self, loaded: _Loaded, room: int, reading: _Reading) -> dict[str, Any]:
        transformers = importlib.import_module("transformers")
        options: dict[str, Any] = {
            "max_new_tokens": room,
            "stopping_criteria": transformers.StoppingCriteriaList([reading]),
        }
        if self._temperature == 0:
            # What only sampling needs, and what the makers may have set for it, is taken back.
            options |= {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
        elif self._temperature is not None:
            options |= {"do_sample": True, "temperature": self._temperature}
        if loaded.tokenizer.pad_token_id is None and (ends := _end_ids(loaded)):
            options["pad_token_id"] = ends[0]
        return options | self._generate

    def _prepare(self) -> None:
        # What fails here fails again where the model is needed, or fails because the program ends.
        with suppress(Exception):
            self._load()

    def _load(self) -> _Loaded:
        with self._loading:
            if self._loaded is None:
                try:
                    self._loaded = self._read()
                except ModelError:
                    raise
                except Exception as error:  # a missing or broken file, no network, no memory, ...
                    reason = f"it cannot be loaded: {self._reason(error)}"
                    raise ModelError(self.name, reason) from error
            return self._loaded

    def _read(self) -> _Loaded:
        try:
            torch: Any = importlib.import_module("torch")
            transformers: Any = importlib.import_module("transformers")
        except ImportError as error:
            reason = f"{error}. Install what it needs: pip install 'kernel-agent[transformers]'."
            raise ModelError(self.name, reason) from error
        dtype = self._dtype if self._dtype == "auto" else getattr(torch, self._dtype, None)
        if dtype != "auto" and not isinstance(dtype, torch.dtype):
            reason = f"torch has no dtype {self._dtype!r}. Some it has: bfloat16, float16, float32."
            raise ModelError(self.name, reason)
        version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
        word = "dtype" if version >= (4, 56) else "torch_dtype"
        with _quiet(transformers.utils.logging):
            tokenizer = transformers.AutoTokenizer.from_pretrained(self._source, **self._hub)
            network = transformers.AutoModelForCausalLM.from_pretrained(
                self._source, **{word: dtype}, **self._hub
            )
        network = network.to(best_device(torch) if self._device == "auto" else self._device).eval()
        return _Loaded(tokenizer, network, _window(tokenizer, network.config))

    def _reason(self, error: Exception) -> str:
        text = " ".join(redact(f"{type(error).__name__}: {error}", self._hub).split())
        return text if len(text) <= MAX_REASON else text[:MAX_REASON] + "…"


@dataclass(frozen=True)
class _Loaded:
    """A model in memory; `window` is how many tokens it can hold, None where that is unknown."""

    tokenizer: Any
    network: Any
    window: int | None


class _Reading:
    """Reads a reply as it grows, token by token, tells the listener, and says when to stop.

    It is a stopping criterion of transformers. `start` is where the reply begins. It ends with
    what `watch` finds, with the text `turn`, and with what the listener raises, kept in `raised`.
    """

    def __init__(
        self, tokenizer: Any, start: int, listener: Listener | None, watch: BlockWatch, turn: str
    ) -> None:
        self.is_stopped = False
        self.raised: BaseException | None = None
        self._tokenizer = tokenizer
        self._start = start
        self._listener = listener
        self._turn = turn
        self._watch = watch
        self._tokens: list[int] = []
        self._pieces: list[str] = []
        self._end = ""  # the last characters, as many as `turn` may have begun in
        self._context = self._done = 0  # tokens told last, and where those before them begin

    def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
        self._tokens += input_ids[0, self._start + len(self._tokens) :].tolist()
        piece = self._next_piece()
        if piece and not piece.endswith("\ufffd"):  # else half a character
            self._context, self._done = self._done, len(self._tokens)
            self._add(piece)
        return input_ids.new_full((1,), int(self.is_stopped)).bool()

    @property
    def length(self) -> int:
        """How many tokens have been read."""
        return len(self._tokens)

    @property
    def last(self) -> int | None:
        """The last token."""
        return self._tokens[-1] if self._tokens else None

    def end(self) -> str:
        """The text of the reply, which is over."""
        if self.raised is None and (piece := self._next_piece()):
            self._done = len(self._tokens)
            self._add(piece)
        return "".join(self._pieces)

    def _next_piece(self) -> str:
        """The text of the tokens that are new, as it is after those that were told last.

        Alone they would be another text: many tokenizers leave out a space at the beginning.
        """
        known = _decode(self._tokenizer, self._tokens[self._context : self._done])
        return _decode(self._tokenizer, self._tokens[self._context :])[len(known) :]

    def _add(self, piece: str) -> None:
        self._pieces.append(piece)
        self._end += piece
        self.is_stopped = self._watch.feed(piece) or (bool(self._turn) and self._turn in self._end)
        self._end = self._end[-len(NEXT_TURN) :]
        if self._listener:
            try:
                self._listener(ReplyText(piece))
            except BaseException as error:  # whatever it is, it is not torch's to see
                self.raised = error
                self.is_stopped = True


def best_device(torch: Any) -> str:
    """The fastest device that is there: `"cuda"`, `"mps"` or `"cpu"`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _decode(tokenizer: Any, tokens: Any) -> str:
    text: str = tokenizer.decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


def _end_ids(loaded: _Loaded) -> list[int]:
    """The tokens that end a reply."""
    ids = loaded.network.generation_config.eos_token_id
    return ids if isinstance(ids, list) else [ids] if ids is not None else []


def _window(tokenizer: Any, config: Any) -> int | None:
    """The context window in tokens, None if nothing tells it."""
    text = getattr(config, "text_config", config)  # a model for images too has one for text
    window = getattr(text, "max_position_embeddings", None) or tokenizer.model_max_length
    # A tokenizer that does not know says 10^30.
    return window if isinstance(window, int) and window < 10**9 else None


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """No warnings and no progress bars of transformers': they would spoil what a terminal shows."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
