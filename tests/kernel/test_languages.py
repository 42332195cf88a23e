"""Kernels of other languages: Bash (from the package index) and R (from the system), if there."""

import importlib.util
import json
import sys

import pytest

from kernel_agent.agent import Agent
from kernel_agent.errors import DataError
from kernel_agent.kernel import Kernel
from kernel_agent.kernel.process import installed_kernels
from kernel_agent.testing import ScriptedModel

pytestmark = pytest.mark.slow

needs_bash = pytest.mark.skipif(
    not importlib.util.find_spec("bash_kernel"), reason="needs bash_kernel: pip install bash_kernel"
)
needs_r = pytest.mark.skipif(
    "ir" not in installed_kernels(), reason="needs IRkernel: apt-get install r-cran-irkernel"
)


@pytest.fixture
def specs(tmp_path, monkeypatch):
    """Writes kernelspecs into a folder where they are found."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    def write(name, module, **more):
        folder = tmp_path / "jupyter" / "kernels" / name
        folder.mkdir(parents=True)
        argv = [sys.executable, "-m", module, "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": name, "language": name, **more}
        (folder / "kernel.json").write_text(json.dumps(spec))
        return name

    return write


def plain(result):
    """What a cell has printed or shown, as text."""
    shown = (o.get("text") or o.get("data", {}).get("text/plain", "") for o in result.outputs)
    return "".join(shown).strip()


@pytest.mark.slow
@needs_bash
def test_bash_keeps_its_state_reports_errors_and_can_be_stopped(specs):
    with Kernel(specs("bash", "bash_kernel")) as kernel:
        assert kernel.language == "bash"
        assert plain(kernel.execute("x=3; echo out; echo err >&2")).split() == ["out", "err"]
        assert kernel.execute("no-such-command").status == "error"
        stopped = kernel.execute("sleep 60", timeout=0.5)
        assert stopped.status == "interrupted"
        assert "kept" in stopped.reason
        result = kernel.execute("echo $x")
        assert plain(result) == "3"
        assert result.variables == {}


@pytest.mark.slow
@needs_bash
def test_the_death_of_a_bash_kernel_is_noticed_and_mended(specs):
    with Kernel(specs("bash", "bash_kernel")) as kernel:
        result = kernel.execute("kill -9 $PPID", timeout=20)
        assert result.status == "died"
        assert "SIGKILL" in result.reason
        kernel.restart()
        assert plain(kernel.execute("echo on")) == "on"


@needs_r
def test_r_keeps_its_state_reports_errors_and_can_be_stopped():
    with Kernel("ir") as kernel:
        assert kernel.language == "r"
        assert kernel.kernelspec == {"name": "ir", "display_name": "R", "language": "r"}
        assert plain(kernel.execute("x <- 3; cat('printed')")) == "printed"
        wrong = kernel.execute("cat('before'); stop('bad luck')")
        assert wrong.status == "error"
        assert plain(wrong) == "before"
        assert "bad luck" in wrong.outputs[-1]["evalue"]
        for endless in ("Sys.sleep(60)", "repeat {}"):
            stopped = kernel.execute(endless, timeout=0.5)
            assert stopped.status == "interrupted"
        assert plain(kernel.execute("x")) == "[1] 3"
        figure = kernel.execute("plot(1:3)").outputs[0]["data"]
        assert figure["image/png"]


@needs_r
def test_the_death_of_an_r_kernel_is_noticed_and_mended():
    with Kernel("ir") as kernel:
        result = kernel.execute("cat('on'); tools::pskill(Sys.getpid(), 9)", timeout=20)
        assert result.status == "died"
        assert "SIGKILL" in result.reason
        kernel.restart()
        assert plain(kernel.execute("exists('x')")) == "[1] FALSE"


def test_a_kernel_that_wants_its_interrupts_as_messages_gets_them(specs):
    name = specs("polite", "ipykernel_launcher", interrupt_mode="message", language="python")
    with Kernel(name) as kernel:
        kernel.execute("kept = 1")
        for endless in ("import time; time.sleep(60)", "while True: pass"):
            assert kernel.execute(endless, timeout=0.5).status == "interrupted"
        assert plain(kernel.execute("kept")) == "1"


@needs_r
def test_a_run_in_r_reads_r_blocks_and_is_told_what_r_has(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("a\n1\n2\n")
    model = ScriptedModel(
        [
            f"I look.\n```r\nt <- read.csv('{table}')\nsum(t$a)\n```",
            "That was one step.\n```{r}\nstop('bad luck')\n```",
            "```python\nprint(1)\n```",
            "",
            "The sum is 3.",
        ]
    )
    with Agent(model, kernel="ir", folder=tmp_path) as agent:
        run = agent.run("Sum up a.", files=[table])
    system, task = (message["content"] for message in model.requests[0][:2])
    assert "with R code" in system
    assert "```r\norders <- read.csv" in system
    assert "without a code block" in system
    for word in ("Python", "python", "final_answer", "Variables:", "pandas", "…"):
        assert word not in system, word
    assert f"{table}: a file that is there" in task
    first, second, third, fourth = (step.observation.text for step in run.transcript.steps[:4])
    assert "3" in first
    assert "Variables" not in first
    assert "bad luck" in second
    assert "```r" in third
    assert "```r" in fourth
    assert "python" not in third + fourth
    assert run.answer == "The sum is 3."
    notebook = json.loads(run.path.read_text())
    assert notebook["metadata"]["kernelspec"]["language"] == "r"
    assert "final_answer" not in run.path.read_text()


@needs_r
def test_variables_cannot_be_given_to_a_kernel_that_is_not_python(tmp_path):
    with (
        Agent(ScriptedModel([]), kernel="ir", folder=tmp_path / "runs") as agent,
        pytest.raises(DataError, match=r"'x'.*Python only.*'ir'"),
    ):
        agent.run("Add.", data={"x": 1})
    assert not (tmp_path / "runs").exists()
