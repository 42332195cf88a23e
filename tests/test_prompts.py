"""The prompts: every file with every combination of what it may be given, and its length."""

import importlib.util
import itertools
import re
from functools import cache
from pathlib import Path

import jinja2
import pytest
import tiktoken
from jinja2 import meta

from kernel_agent.errors import PromptError
from kernel_agent.limits import Scarcity
from kernel_agent.looping import Repeats
from kernel_agent.opening import EXAMPLES
from kernel_agent.prompts import Prompts
from kernel_agent.shipped import shipped
from kernel_agent.steps import Rebuilt

REBUILT = [
    None,
    Rebuilt(back=("a", "b")),
    Rebuilt(lost=("c",), differing=("step 2", "cell a1")),
    Rebuilt(("a",), ("b",), reason="The earlier cells were not run again."),
    Rebuilt(restored=("a",), reason="Step 3 could not be run again."),
]
FORMATS = ["fence", "tools", "json"]
OPTIONS = {
    "system": {
        "reply_format": FORMATS,
        "language": ["python", "r"],
        "language_name": ["Python"],
        "example": ["1 + 1"],
        "python": ["3.11.7"],
        "packages": [[], ["numpy", "pandas"]],
        "images": [False, True],
        "max_steps": [20],
        "cell_timeout": ["120"],
        "max_chars": ["8,000"],
        "budget": ["", "9,000 tokens"],
        "tools": [[], ['def add(a: int) -> int:\n    """Add."""', "def two(): ..."]],
        "native_tools": [[], ["search", "price"]],
        "can_read_outputs": [False, True],
        "instructions": ["", "Answer in French."],
    },
    "task": {
        "task": ["What?"],
        "is_follow_up": [False, True],
        "files": [[], ["File one", "File two"]],
        "variables": [[], ["x: int"]],
        "rebuilt": REBUILT,
        "notebook": ["", "[cell 1, code]\n1 + 1"],
        "is_attached": [False, True],
        "wanted": ["", "The value must be an int."],
    },
    "observation": {
        "text": ["42"],
        "unusable": ["", "It was empty."],
        "is_answer_question": [False, True],
        "code_refused": ["", "The user refused it."],
        "edited": ["", "x = 2"],
        "notices": ["", "You go in a circle."],
        "language": ["python"],
        "step": [3, 19, 20],
        "max_steps": [20],
        "limit": ["", "max_steps"],
        "scarcity": [None, Scarcity("max_cost", 2), Scarcity("max_tokens", 0)],
        "reply_format": FORMATS,
    },
    "notices": {
        "refused": ["", "Too small."],
        "answer_refused": [False, True],
        "rebuilt": REBUILT[:2],  # and `limit`: each has a prompt of its own, with all its forms
        "limit": ["", "max_steps"],
        "loop": [
            None,
            *(Repeats(kind, (2, 3, 4)) for kind in ("error", "result", "reply", "refused")),
        ],
        "reply_format": FORMATS,
    },
    "rebuilt": {"rebuilt": REBUILT[1:]},
    "plan": {"is_made": [False, True], "limit": ["", "max_cost"], "reply_format": FORMATS},
    "limit": {
        "limit": ["max_steps", "max_cost", "max_tokens", "max_seconds"],
        "reply_format": FORMATS,
    },
    "summary": {
        "is_made": [False, True],
        "summary": ["", "They sold 3."],
        "plan": ["", "1. Look."],
        "plan_step": [11],
        "variables": ["", "x: int"],
        "functions": ["", "look(name)"],
        "max_words": [300],
        "reply_format": FORMATS,
    },
    "refused": {"refused": ["Too small."]},
}

USERS = set(
    "code_refused edited example files functions instructions native_tools notebook notices "
    "packages plan refused summary task text tools unusable variables wanted".split()
)
"""The variables that hold what a user, a model or a kernel has said: no words of the prompts."""


def combinations(name):
    options = OPTIONS[name]
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


def source(name):
    return (shipped("prompts") / f"{name}.md").read_text(encoding="utf-8")


def variables_of(name):
    """The variables that a prompt file uses, itself or in the files that it includes."""
    parsed = jinja2.Environment().parse(source(name))
    included = [Path(file).stem for file in meta.find_referenced_templates(parsed)]
    return meta.find_undeclared_variables(parsed).union(*map(variables_of, included))


def emptied(value):
    """A value that is there, but says nothing."""
    match value:
        case list() if value:
            return [" "]
        case str() if value:
            return " "
    return value


@cache
def encoding():
    """OpenAI's tokens, from the file that litellm brings along: nobody is asked for it."""
    litellm = Path(importlib.util.find_spec("litellm").origin).parent
    folder = litellm / "litellm_core_utils" / "tokenizers"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        return tiktoken.get_encoding("cl100k_base")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_combination_of_features_renders_tidily(name):
    prompts = Prompts()
    for variables in combinations(name):
        text = prompts.render(name, **variables)
        assert text == text.strip()
        assert "{" not in text
        assert not re.search(r"\n{3,}|[ \t]\n", text)


def test_every_prompt_file_is_tested():
    assert {path.stem for path in shipped("prompts").glob("*.md")} == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_missing_variable_is_an_error_that_names_file_and_variable(name):
    variables = next(iter(combinations(name)))
    needed = {"system": "language", "observation": "unusable"}.get(name) or next(iter(variables))
    del variables[needed]
    with pytest.raises(PromptError, match=rf"{name}\.md.*'{needed}' is undefined"):
        Prompts().render(name, **variables)


def test_a_users_folder_replaces_single_files(tmp_path):
    (tmp_path / "task.md").write_text("Task: {{ task }}\n")
    prompts = Prompts(tmp_path)
    assert prompts.render("task", **next(combinations("task"))) == "Task: What?"
    assert prompts.render("system", **next(combinations("system"))).startswith("You solve")


def test_a_broken_template_names_its_line(tmp_path):
    (tmp_path / "task.md").write_text("fine\n{% if %}\n")
    with pytest.raises(PromptError, match=r"task\.md.*line 2"):
        Prompts(tmp_path).render("task")


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(PromptError, match="no such folder"):
        Prompts(tmp_path / "gone")


def test_the_first_line_of_an_observation_keeps_its_blanks():
    variables = next(combinations("observation"))
    shown = Prompts().render("observation", **variables | {"text": "   a  b\n0  1  2"})
    assert shown.splitlines()[:2] == ["   a  b", "0  1  2"]


def test_what_is_included_ends_its_line():
    variables = next(combinations("notices")) | {"refused": "Too small."}
    shown = Prompts().render("notices", **variables)
    assert "The answer was not taken: Too small.\nMend that" in shown


def test_text_in_a_variable_is_never_a_template():
    variables = next(combinations("task")) | {"task": "{{ secrets }} <b>"}
    text = Prompts().render("task", **variables)
    assert text == "{{ secrets }} <b>"


@pytest.mark.parametrize("name", OPTIONS)
def test_every_variable_of_a_prompt_is_tested(name):
    assert variables_of(name) == set(OPTIONS[name])


@pytest.mark.parametrize("name", OPTIONS)
def test_a_prompts_own_words_are_within_the_tokens_that_it_states(name):
    stated = re.match(r"\{# At most (\d+) tokens\. #\}\n", source(name))
    assert stated, f"{name}.md: its first line is no `{{# At most N tokens. #}}`"
    prompts, longest = Prompts(), 0
    for variables in combinations(name):
        for variable in USERS & variables.keys():
            variables[variable] = emptied(variables[variable])
        text = prompts.render(name, **variables)
        longest = max(longest, len(encoding().encode(text)))
    assert 0.5 * int(stated[1]) <= longest <= int(stated[1])


@pytest.mark.parametrize("reply_format", FORMATS)
def test_a_usual_system_prompt_has_at_most_850_tokens(reply_format):
    variables = {key: values[-1] for key, values in OPTIONS["system"].items()}
    packages = "numpy pandas pyarrow scipy sklearn statsmodels matplotlib seaborn openpyxl requests"
    variables |= {"language": "python", "instructions": "", "packages": packages.split()}
    variables |= {"native_tools": [], "tools": [], "reply_format": reply_format}
    text = Prompts().render("system", **variables | {"example": EXAMPLES["python"]})
    assert len(encoding().encode(text)) <= 850


def test_a_misnamed_file_is_an_error_that_names_the_nearest(tmp_path):
    (tmp_path / "systm.md").write_text("You are a pirate.")
    with pytest.raises(PromptError, match=r"systm\.md.*Did you mean 'system\.md'\? Known: "):
        Prompts(tmp_path)


def test_a_file_of_the_users_that_a_prompt_includes_is_none(tmp_path):
    (tmp_path / "task.md").write_text("{% include 'house-rules.md' %}\n{{ task }}")
    (tmp_path / "house-rules.md").write_text("Be brief.\n")
    (tmp_path / "notes.txt").write_text("{% not a prompt")
    text = Prompts(tmp_path).render("task", **next(combinations("task")))
    assert text == "Be brief.\nWhat?"


def test_a_file_that_is_no_template_is_told_before_it_is_wanted(tmp_path):
    (tmp_path / "limit.md").write_text("fine\n{% if %}\n")
    with pytest.raises(PromptError, match=r"limit\.md.*line 2"):
        Prompts(tmp_path)
    (tmp_path / "limit.md").write_bytes(b"\xff")
    with pytest.raises(PromptError, match=r"limit\.md.*not UTF-8"):
        Prompts(tmp_path)
