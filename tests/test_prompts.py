import itertools
import re

import pytest

from kernel_agent.errors import PromptError
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
OPTIONS = {
    "system": {
        "language": ["python", "r"],
        "language_name": ["Python"],
        "example": ["1 + 1"],
        "python": ["3.11.7"],
        "packages": [[], ["numpy", "pandas"]],
        "images": [False, True],
        "max_steps": [20],
        "cell_timeout": ["120"],
        "tools": [[], ['def add(a: int) -> int:\n    """Add."""', "def two(): ..."]],
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
        "refused": ["", "Too small."],
        "answer_refused": [False, True],
        "rebuilt": REBUILT[:2],  # and `limit`: each has a prompt of its own, with all its forms
        "language": ["python"],
        "step": [3, 19, 20],
        "max_steps": [20],
        "limit": ["", "max_steps"],
    },
    "rebuilt": {"rebuilt": REBUILT[1:]},
    "plan": {"is_made": [False, True], "limit": ["", "max_cost"]},
    "limit": {"limit": ["max_steps", "max_cost", "max_tokens", "max_seconds"]},
    "refused": {"refused": ["Too small."]},
}


def combinations(name):
    options = OPTIONS[name]
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_combination_of_features_renders_tidily(name):
    for variables in combinations(name):
        text = Prompts().render(name, **variables)
        assert text == text.strip()
        assert "{" not in text
        assert not re.search(r"\n{3,}|[ \t]\n", text)


def test_every_prompt_file_is_tested():
    assert {path.stem for path in shipped("prompts").glob("*.md")} == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_missing_variable_is_an_error_that_names_file_and_variable(name):
    variables = next(iter(combinations(name)))
    needed = next(iter(variables))
    if name == "observation":
        needed = "unusable"
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


def test_text_in_a_variable_is_never_a_template():
    variables = next(combinations("task")) | {"task": "{{ secrets }} <b>"}
    text = Prompts().render("task", **variables)
    assert text == "{{ secrets }} <b>"


def test_the_system_prompt_has_at_most_800_tokens():
    import litellm

    variables = {key: values[-1] for key, values in OPTIONS["system"].items()}
    packages = "numpy pandas pyarrow scipy sklearn statsmodels matplotlib seaborn openpyxl requests"
    variables |= {"language": "python", "instructions": "", "packages": packages.split()}
    example = 'import pandas as pd\norders = pd.read_csv("orders.csv")\n' * 2
    text = Prompts().render("system", **variables | {"example": example})
    assert litellm.token_counter("gpt-4", text=text) <= 800
