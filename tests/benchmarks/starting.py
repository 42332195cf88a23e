"""How long a user waits: `python -m tests.benchmarks.starting`.

Times, as whole processes and medians of several, `--help` against a bare interpreter, and from
the start of `kernel-agent run` to the arrival of its first request at a local server.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from tests.openai_server import OpenAIServer

ROUNDS = 7
COMMAND = [sys.executable, "-m", "kernel_agent"]


def seconds(command: list[str]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def first_request(*, data: str | None) -> float:
    times = []
    for _ in range(ROUNDS):
        with (
            tempfile.TemporaryDirectory() as folder,
            OpenAIServer(["```python\nfinal_answer(1)\n```"]) as server,
        ):
            options = [
                "--model",
                "openai/any",
                "--api-base",
                server.url,
                "--folder",
                folder,
                "--quiet",
            ]
            options += ["--data", data] if data else []
            started = time.time()
            environment = os.environ | {"OPENAI_API_KEY": "sk-bench"}
            subprocess.run(
                [*COMMAND, "run", "What?", *options],
                check=True,
                env=environment,
                capture_output=True,
            )
            times.append(server.requests[0].time - started)
    return statistics.median(times)


def main() -> None:
    from vega_datasets import local_data

    bare = seconds([sys.executable, "-c", "pass"])
    for name, command in {
        "kernel-agent --help": [*COMMAND, "--help"],
        "import kernel_agent": [sys.executable, "-c", "import kernel_agent"],
        "import litellm": [
            sys.executable,
            "-c",
            "import os; os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'; import litellm",
        ],
    }.items():
        took = seconds(command)
        print(f"{name:<32} {took:6.3f} s  {took / bare:6.1f} × python -c pass")
    for name, data in {
        "first request": None,
        "first request, with --data": local_data.seattle_weather.filepath,
    }.items():
        print(f"{name:<32} {first_request(data=data):6.3f} s")


if __name__ == "__main__":
    main()
