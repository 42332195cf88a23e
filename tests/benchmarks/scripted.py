"""Whole scripted runs, ours and those of peers, against a local server without latency.

A peer must be installed: smolagents[litellm], or autogen-agentchat and
autogen-ext[openai,jupyter-executor].
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from dataclasses import dataclass
from typing import Any

from kernel_agent import Agent, LiteLLM
from kernel_agent.events import Event, StepFinished
from tests.openai_server import OpenAIServer
from tests.wire.answers import Call, Said
from tests.wire.openai_wire import OpenAIWire
from tests.wire.server import WireServer

STEPS = 20
SOURCES = {
    "small": "x = {step}\nprint(x * 2)",
    "200 lines": "for i in range(200): print(i, 'a line of {step}')",
    "computing": "total = {step}\nfor i in range(300_000): total += i * i % 7\nprint(total)",
}
"""The cell of a step, by kind; steps differ, or the run would be ended for going in circles."""

TASK = "Do it."
LAST = "final_answer(1)"


@dataclass(frozen=True)
class Done:
    """When each step of a run was over (seconds), and the bodies of its requests."""

    times: list[float]
    bodies: list[dict[str, Any]]


def cells(source: str) -> list[str]:
    return [*(source.format(step=number) for number in range(STEPS)), LAST]


def ours(source: str, *, streams: bool = False, reply_format: str = "fence") -> Done:
    times: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepFinished):
            times.append(time.perf_counter())

    with _server(source, reply_format) as server, tempfile.TemporaryDirectory() as folder:
        model = LiteLLM(
            "openai/any", api_base=server.url, api_key="sk-bench", reply_format=reply_format
        )
        listener = listen if streams else None
        with Agent(model, folder=folder, max_steps=STEPS + 5, listener=listener) as agent:
            if not streams:
                agent._loop.tell = listen  # type: ignore[method-assign]
            outcome = agent.run(TASK).outcome
        assert outcome.status == "answered", outcome
        return Done(times, _bodies(server))


def smolagents(source: str) -> Done:
    from smolagents import ActionStep, CodeAgent, LiteLLMModel, LogLevel

    times: list[float] = []
    answers = [
        text.replace("```python", "<code>").replace("```", "</code>") for text in _fenced(source)
    ]
    with OpenAIServer(answers) as server:
        model = LiteLLMModel("openai/any", api_base=server.url, api_key="sk-bench")
        agent = CodeAgent(
            tools=[],
            model=model,
            max_steps=STEPS + 5,
            verbosity_level=LogLevel.OFF,
            step_callbacks={ActionStep: lambda step, agent: times.append(time.perf_counter())},
        )
        assert agent.run(TASK) == 1
        return Done(times, _bodies(server))


def autogen(source: str) -> Done:
    import asyncio

    from autogen_agentchat.agents import AssistantAgent, CodeExecutorAgent
    from autogen_agentchat.conditions import MaxMessageTermination
    from autogen_agentchat.teams import RoundRobinGroupChat
    from autogen_ext.code_executors.jupyter import JupyterCodeExecutor
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    warnings.filterwarnings("ignore", "No approval function set")

    async def run(url: str, folder: str) -> list[float]:
        info = {"vision": False, "function_calling": False, "json_output": False}
        client = OpenAIChatCompletionClient(
            model="any",
            base_url=url,
            api_key="sk-bench",
            model_info=info | {"family": "unknown", "structured_output": False},
        )
        async with JupyterCodeExecutor(output_dir=folder) as executor:
            coder = AssistantAgent(
                "coder", model_client=client, system_message="Write Python code."
            )
            runner = CodeExecutorAgent("runner", code_executor=executor)
            # The task, a reply and its output for each step, the last reply.
            ending = MaxMessageTermination(2 * STEPS + 2)
            team = RoundRobinGroupChat([coder, runner], termination_condition=ending)
            times = []
            async for message in team.run_stream(task=TASK):
                if getattr(message, "source", "") == "runner":
                    times.append(time.perf_counter())
            return times

    with OpenAIServer(_fenced(source)) as server, tempfile.TemporaryDirectory() as folder:
        return Done(asyncio.run(run(server.url, folder)), _bodies(server))


PEERS = {"smolagents": smolagents, "autogen": autogen}


def _server(source: str, reply_format: str) -> OpenAIServer | WireServer:
    match reply_format:
        case "tools":
            answers = [
                Said(
                    f"Step {number}.", calls=(Call("python", {"code": code}, id=f"call_{number}"),)
                )
                for number, code in enumerate(cells(source))
            ]
            return WireServer(OpenAIWire(), answers)
        case "json":
            return OpenAIServer(
                json.dumps({"thought": f"Step {number}.", "code": code})
                for number, code in enumerate(cells(source))
            )
    return OpenAIServer(_fenced(source))


def _fenced(source: str) -> list[str]:
    return [f"Step {n}.\n```python\n{code}\n```" for n, code in enumerate(cells(source))]


def _bodies(server: OpenAIServer | WireServer) -> list[dict[str, Any]]:
    if isinstance(server, WireServer):
        return server.bodies
    return [request.body for request in server.requests]
