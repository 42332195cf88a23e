import pytest

from kernel_agent.errors import SettingsError
from kernel_agent.limits import Limits
from kernel_agent.steps import CellResult, Reply, Step, Usage


def step(**usage):
    seconds = usage.pop("kernel_seconds", 0.0)
    return Step(Reply("", usage=Usage(**usage)), "", result=CellResult("", seconds=seconds))


@pytest.mark.parametrize(
    "name", ["max_steps", "max_cost", "max_tokens", "max_seconds", "cell_timeout"]
)
@pytest.mark.parametrize("value", [0, -1, True, float("nan"), "3"])
def test_a_limit_must_be_a_number_above_0(name, value):
    with pytest.raises(SettingsError, match=f"{name} is"):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("limits", "steps", "reached"),
    [
        (Limits(max_steps=2), [step()], None),
        (Limits(max_steps=2), [step(), step()], "max_steps"),
        (Limits(max_cost=0.1), [step(cost=0.04), step(cost=0.05)], None),
        (Limits(max_cost=0.1), [step(cost=0.04), step(cost=0.06)], "max_cost"),
        (Limits(max_cost=0.1), [step(cost=None)], None),
        (Limits(max_tokens=10), [step(prompt_tokens=6, completion_tokens=4)], "max_tokens"),
        (Limits(max_seconds=1), [step(model_seconds=0.5, kernel_seconds=0.5)], "max_seconds"),
        (Limits(max_seconds=1), [step(model_seconds=0.5, kernel_seconds=0.4)], None),
    ],
)
def test_a_limit_is_reached_by_the_sum_of_the_steps(limits, steps, reached):
    assert limits.reached(steps) == reached


def test_a_cell_may_run_for_its_timeout_or_what_is_left_of_the_seconds():
    assert Limits(cell_timeout=5).cell_seconds([]) == 5
    assert Limits(cell_timeout=5, max_seconds=3).cell_seconds([step(model_seconds=1.0)]) == 2
    assert Limits(max_seconds=3).cell_seconds([step(model_seconds=9.0)]) > 0
