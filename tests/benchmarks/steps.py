"""What a step costs: `python -m tests.benchmarks.steps [--peer smolagents] [--peer autogen]`.

Asks a local scripted server without latency through litellm, as a run would, and prints the
median milliseconds of a step of ours, and of a peer's in the same run (smolagents[litellm], or
autogen-agentchat and autogen-ext[openai,jupyter-executor], must be installed).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time

from kernel_agent import Agent, LiteLLM
from kernel_agent.events import Event, StepFinished
from tests.openai_server import OpenAIServer

STEPS = 20
SOURCES = {
    "small": "x = {step}\nprint(x * 2)",
    "200 lines": "for i in range(200): print(i, 'a line')",
    "computing": "total = 0\nfor i in range(300_000): total += i * i % 7\nprint(total)",
}


def replies(source: str) -> list[str]:
    code = [f"Step {n}.\n```python\n{source.format(step=n)}\n```" for n in range(STEPS)]
    return [*code, "```python\nfinal_answer(1)\n```"]


def ours(source: str, *, streams: bool) -> tuple[float, int]:
    """Median milliseconds from step to step, and the characters of all requests."""
    times: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepFinished):
            times.append(time.perf_counter())

    with OpenAIServer(replies(source)) as server, tempfile.TemporaryDirectory() as folder:
        model = LiteLLM("openai/any", api_base=server.url, api_key="sk-bench")
        listener = listen if streams else None
        with Agent(model, folder=folder, max_steps=STEPS + 5, listener=listener) as agent:
            if not streams:
                agent._loop.tell = listen  # type: ignore[method-assign]
            agent.run("Do it.")
        return _median(times), _characters(server)


def smolagents(source: str) -> tuple[float, int]:
    from smolagents import ActionStep, CodeAgent, LiteLLMModel, LogLevel

    times: list[float] = []
    answers = [
        text.replace("```python", "<code>").replace("```", "</code>") for text in replies(source)
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
        agent.run("Do it.")
        return _median(times), _characters(server)


def autogen(source: str) -> tuple[float, int]:
    import asyncio

    from autogen_agentchat.agents import AssistantAgent, CodeExecutorAgent
    from autogen_agentchat.conditions import MaxMessageTermination
    from autogen_agentchat.teams import RoundRobinGroupChat
    from autogen_ext.code_executors.jupyter import JupyterCodeExecutor
    from autogen_ext.models.openai import OpenAIChatCompletionClient

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
            ending = MaxMessageTermination(2 * STEPS)
            team = RoundRobinGroupChat([coder, runner], termination_condition=ending)
            times = []
            async for message in team.run_stream(task="Do it."):
                if getattr(message, "source", "") == "runner":
                    times.append(time.perf_counter())
            return times

    with OpenAIServer(replies(source)) as server, tempfile.TemporaryDirectory() as folder:
        return _median(asyncio.run(run(server.url, folder))), _characters(server)


def _median(times: list[float]) -> float:
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(gaps) * 1000


def _characters(server: OpenAIServer) -> int:
    return sum(len(json.dumps(request.body["messages"])) for request in server.requests)


PEERS = {"smolagents": smolagents, "autogen": autogen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", choices=list(PEERS), action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    ways = {
        "ours": lambda s: ours(s, streams=False),
        "ours, streamed": lambda s: ours(s, streams=True),
    }
    ways |= {name: PEERS[name] for name in arguments.peer}
    ours(SOURCES["small"], streams=False)  # the first request loads litellm
    for kind, source in SOURCES.items():
        found: dict[str, list[tuple[float, int]]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                found[name].append(way(source))
        base = statistics.median(ms for ms, _ in found["ours"])
        for name, results in found.items():
            ms = statistics.median(ms for ms, _ in results)
            sent = f"{results[0][1]:>9,} characters sent"
            print(f"{kind:<10} {name:<16} {ms:6.1f} ms a step  {ms / base:5.2f} × ours  {sent}")


if __name__ == "__main__":
    main()
