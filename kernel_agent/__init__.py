"""A Python code agent whose every run is a notebook.

    from kernel_agent import Agent

    run = Agent("openai/gpt-5").run("Which month is the wettest?", files=["weather.csv"])
    print(run.answer, run.path)

Every name is imported from its module when it is first used, so `import kernel_agent` costs
next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel_agent.agent import Agent as Agent
    from kernel_agent.agent import Run as Run
    from kernel_agent.approving import Refused as Refused
    from kernel_agent.console import LiveView as LiveView
    from kernel_agent.errors import KernelAgentError as KernelAgentError
    from kernel_agent.kernel import Kernel as Kernel
    from kernel_agent.model import LiteLLM as LiteLLM
    from kernel_agent.model import Model as Model
    from kernel_agent.resuming import continue_notebook as continue_notebook
    from kernel_agent.resuming import fork as fork
    from kernel_agent.resuming import resume as resume
    from kernel_agent.testing import ScriptedModel as ScriptedModel
    from kernel_agent.tools import Tool as Tool
    from kernel_agent.tools import tool as tool
    from kernel_agent.transcript import Transcript as Transcript

__version__ = "0.1.0"

_MODULES = {
    "Agent": "agent",
    "Kernel": "kernel",
    "KernelAgentError": "errors",
    "LiteLLM": "model",
    "LiveView": "console",
    "Model": "model",
    "Refused": "approving",
    "Run": "agent",
    "ScriptedModel": "testing",
    "Tool": "tools",
    "Transcript": "transcript",
    "continue_notebook": "resuming",
    "fork": "resuming",
    "resume": "resuming",
    "tool": "tools",
}

__all__ = [*_MODULES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
