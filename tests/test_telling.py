"""Listeners that fail are reported, and end nothing."""

import warnings

import pytest

from kernel_agent.agent import Agent
from kernel_agent.events import ReplyStarted, ReplyText, RunFinished
from kernel_agent.steps import Usage
from kernel_agent.telling import Telling
from kernel_agent.testing import ScriptedModel

EVENT = ReplyStarted(1, 20, Usage())


def failing(*errors):
    """A listener that raises `errors`, one at each call."""
    left = list(errors)

    def listen(event):
        raise left.pop(0)

    return listen


def test_all_listeners_hear_an_event_though_the_first_fails():
    heard = []
    with pytest.warns(RuntimeWarning, match=r"failed at ReplyStarted: ValueError: mine \(test_tel"):
        Telling([failing(ValueError("mine")), heard.append])(EVENT)
    assert heard == [EVENT]


def test_a_failure_is_reported_once_for_each_listener_and_type():
    errors = [ValueError("a"), ValueError("b"), KeyError("c")]
    tell = Telling([failing(*errors), failing(*errors)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in errors:
            tell(EVENT)
    words = [str(warning.message) for warning in caught]
    assert ["ValueError: a" in text for text in words] == [True, True, False, False]
    assert ["KeyError: 'c'" in text for text in words] == [False, False, True, True]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_a_program_passes(error):
    with pytest.raises(type(error)):
        Telling(failing(error))(EVENT)


def test_without_a_listener_nobody_is_told():
    assert not Telling() and not Telling([])
    assert Telling(print) and Telling([print])


def test_a_run_goes_on_though_its_listener_fails_at_every_event(tmp_path):
    def listen(event):
        raise ValueError(type(event).__name__)

    heard = []
    model = ScriptedModel(["```python\nprint(1)\nfinal_answer(2)\n```"])
    agent = Agent(model, folder=tmp_path, listener=[listen, heard.append])
    with agent, pytest.warns(RuntimeWarning, match="RunStarted") as caught:
        assert agent.run("What?").answer == 2
    assert len(caught) == 1
    assert any(isinstance(event, ReplyText) for event in heard)
    assert isinstance(heard[-1], RunFinished)
