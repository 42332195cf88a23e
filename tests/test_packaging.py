"""What a stranger gets: the wheel, the exports, the README's words."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from PIL import Image

import kernel_agent

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_every_export_is_there_and_documented():
    for name in kernel_agent.__all__:
        value = getattr(kernel_agent, name)
        assert name == "__version__" or value.__doc__, name


def test_an_unknown_export_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        _ = kernel_agent.Agnet


def test_importing_the_package_imports_nothing_heavy():
    heavy = "litellm pandas rich typer jinja2 zmq nbformat jupyter_client kernel_agent.agent"
    program = f"import kernel_agent, sys; print([n for n in {heavy.split()} if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


def test_the_readme_names_the_two_commands_that_set_everything_up():
    start = "python3 -m venv .venv && .venv/bin/pip install "
    assert f"{start}'.[data]' && .venv/bin/kernel-agent demo\n" in README
    assert f"{start}-e '.[test]' && .venv/bin/pytest\n" in README


def test_the_readme_links_to_files_that_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)|src=\"(?!https?:)([^\"]+)\"", README):
        assert (ROOT / "".join(target)).exists(), target


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_readmes_python_runs(number, tmp_path, monkeypatch):
    """Each block as it stands, with a local server in place of the provider."""
    from kernel_agent import Agent
    from tests.openai_server import OpenAIServer

    monkeypatch.chdir(tmp_path)
    Path("weather.csv").write_text("month,rain\n11,90\n7,12\n")
    Image.new("RGB", (8, 8), "white").save("plot.png")
    answer = "```python\nfinal_answer('November')\n```"
    block = blocks("python")[number]
    steps = ["```python\nx = 1\n```"] * 5 if '"run.ipynb"' in block else []
    with OpenAIServer([*steps, *[answer] * 3]) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        if steps:
            with Agent("openai/gpt-5") as agent:
                agent.run("Which month is the wettest?", out="run.ipynb")
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_native_calls_need_no_package_that_comes_with_an_extra(monkeypatch):
    """litellm loads its gateway for MCP with the first request that has tools, unless told not."""
    from kernel_agent import LiteLLM
    from tests.openai_server import OpenAIServer

    for name in [*sys.modules]:
        if name.startswith(("mcp", "litellm.responses.mcp", "litellm.proxy._experimental")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    tool = {"type": "function", "function": {"name": "python", "parameters": {"type": "object"}}}
    with OpenAIServer(["Hello."]) as server:
        model = LiteLLM("openai/any", api_base=server.url, reply_format="tools")
        reply = model.complete([{"role": "user", "content": "Hi."}], tools=[tool])
    assert reply.text == "Hello."
    assert set(server.requests[0].body) == {"model", "messages", "tools"}


def test_the_readmes_table_of_changes_names_files_that_exist():
    table = README.partition("## Where to change what")[2]
    for path in re.findall(r"`((?:kernel_agent|prompts|tests|notebooks)/[^`]*)`", table):
        assert (ROOT / path).exists(), path


def test_the_project_speaks_of_itself_alone():
    this = Path(__file__).name
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if path.is_file() and path.suffix in {".py", ".md", ".toml"} and inside[0][0] != ".":
            text = path.read_text(encoding="utf-8")
            assert path.name == this or "/tmp/" not in text or "tests" in inside, path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_installs_in_a_fresh_environment_and_runs_the_demo(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", f"{wheel}[data]"]
    subprocess.run(install, check=True, capture_output=True)
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    demo = [tmp_path / "venv" / "bin" / "kernel-agent", "demo"]
    done = subprocess.run(
        demo, check=True, capture_output=True, cwd=tmp_path, env=environment, text=True
    )
    assert "The model's replies in this demo are scripted" in done.stderr
    assert "Answer" in done.stdout
    assert len(list((tmp_path / "runs").glob("*.ipynb"))) == 1
