"""The settings, their order of precedence, and what a bad one says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel_agent.errors import SettingsError
from kernel_agent.settings import NAMES, Settings, flag, load_settings, variable


def test_without_anything_every_setting_is_its_default(tmp_path: Path) -> None:
    settings = load_settings({}, {}, tmp_path / "config.toml")
    assert settings == Settings(sources=dict.fromkeys(NAMES, "default"))


def test_the_readme_lists_every_setting_and_no_other() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## Settings\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(--[\w-]+)`.*?\| `(\w+)`.*?\| `(\w+)`", table, re.M)
    assert sorted(rows) == sorted((flag(name), variable(name), name) for name in NAMES)


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('# mine\nmodel = "file"\nkernel = "file"\nmax_cost = 2\n')
    environ = {"KERNEL_AGENT_MODEL": "variable", "KERNEL_AGENT_KERNEL": "variable"}
    settings = load_settings({"model": "flag", "kernel": None}, environ, config)
    assert (settings.model, settings.kernel, settings.max_cost) == ("flag", "variable", 2.0)
    assert settings.sources["model"] == "--model"
    assert settings.sources["kernel"] == "KERNEL_AGENT_KERNEL"
    assert settings.sources["max_cost"] == f"{config} line 4"
    assert settings.sources["max_steps"] == "default"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert load_settings({}, {"KERNEL_AGENT_MODEL": ""}, tmp_path / "none.toml").model is None


def test_values_have_their_types_from_every_source(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('folder = "~/runs"\ncell_timeout = 5\n')
    environ = {"KERNEL_AGENT_MAX_TOKENS": "1000"}
    flags = {"max_steps": "7", "max_cost": "0.5", "prompts": Path("words")}
    settings = load_settings(flags, environ, config)
    assert (settings.max_steps, settings.max_cost, settings.max_tokens) == (7, 0.5, 1000)
    assert (settings.cell_timeout, settings.folder) == (5.0, Path.home() / "runs")
    assert settings.prompts == Path("words")


def test_fallbacks_are_a_list_from_every_source(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('fallback = ["a/1", "b/2"]\n')
    environ = {"KERNEL_AGENT_FALLBACK": "c/3, d/4"}
    assert load_settings({"fallback": []}, {}, config).fallback == ("a/1", "b/2")
    assert load_settings({"fallback": []}, environ, config).fallback == ("c/3", "d/4")
    flags = {"fallback": ["e/5", "f/6"]}
    assert load_settings(flags, environ, config).fallback == ("e/5", "f/6")


def test_words_are_taken_in_any_case(tmp_path: Path) -> None:
    environ = {"KERNEL_AGENT_EFFORT": "High", "KERNEL_AGENT_REPLY_FORMAT": "TOOLS"}
    settings = load_settings({}, environ, tmp_path / "none.toml")
    assert (settings.effort, settings.reply_format) == ("high", "tools")


BAD_VALUES = [
    ("effort", "hard"),
    ("reply_format", "xml"),
    ("window", "32k"),
    ("window", "0"),
    ("requests_per_minute", "0"),
    ("requests_per_minute", "1.5"),
    ("fallback", "a/1,,b/2"),
    ("instructions", " "),
    ("max_steps", "0"),
    ("max_steps", "-3"),
    ("max_steps", "2.5"),
    ("max_steps", "many"),
    ("max_steps", "9" * 5000),
    ("max_tokens", "0"),
    ("max_cost", "0"),
    ("max_cost", "-1"),
    ("max_cost", "nan"),
    ("max_cost", "inf"),
    ("max_cost", "1e999"),
    ("max_cost", "$2"),
    ("max_seconds", "-0.1"),
    ("cell_timeout", "0"),
    ("max_chars", "0"),
    ("model", "  "),
    ("kernel", " "),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_with_its_source_and_what_is_allowed(
    tmp_path: Path, name: str, value: str
) -> None:
    none = tmp_path / "none.toml"
    for source, arguments in (
        (flag(name), ({name: value}, {}, none)),
        (variable(name), ({}, {variable(name): value}, none)),
    ):
        with pytest.raises(SettingsError) as caught:
            load_settings(*arguments)
        message = str(caught.value)
        assert message.startswith(f"{source}: {value!r} is not allowed. {name} is ")


BAD_FILES = [
    ("max_steps = 0", "config.toml line 1: 0 is not allowed"),
    ("\n# steps\nmax_steps = true", "config.toml line 3: True is not allowed"),
    ('max_steps = "x"', "config.toml line 1: 'x' is not allowed"),
    ("max_cost = inf", "config.toml line 1: inf is not allowed"),
    ("model = 3", "config.toml line 1: 3 is not allowed"),
    ("folder = ''", "config.toml line 1: '' is not allowed"),
    ("fallback = []", "config.toml line 1: [] is not allowed. fallback is a list of names"),
    ("fallback = [1]", "config.toml line 1: [1] is not allowed"),
    ("effort = 'hard'", "effort is one of none, minimal, low, medium, high, xhigh, max."),
    ("folder = 1979-05-27", "config.toml line 1"),
    ("max_step = 3", "line 1: no setting 'max_step'. Did you mean 'max_steps'?"),
    ("sources = 3", "line 1: no setting 'sources'"),
    ("kernel = 'ir'\n\n[models]\nx = 1", "line 3: no setting 'models'. Did you mean 'model'?"),
    ("model = 'a'\nmodel =", "config.toml is not valid TOML: Invalid value (at the end, line 2)"),
    ("model = 'a'\nmodel = 'b'", "config.toml is not valid TOML"),
    ("zzz = 1", "line 1: no setting 'zzz'. Known: model, fallback, api_base"),
]


@pytest.mark.parametrize(("text", "words"), BAD_FILES)
def test_a_bad_config_file_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings({}, {}, config)
    assert words in str(caught.value)


def test_a_config_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_bytes(b"model = '\xff'")
    for path in (tmp_path, config):
        with pytest.raises(SettingsError) as caught:
            load_settings({}, {}, path)
        assert f"{path} cannot be read" in str(caught.value)


def test_a_bad_value_that_is_overruled_does_not_matter(tmp_path: Path) -> None:
    environ = {"KERNEL_AGENT_MAX_STEPS": "many"}
    assert load_settings({"max_steps": "3"}, environ, tmp_path / "none.toml").max_steps == 3
