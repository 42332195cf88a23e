"""What handing a table over costs: `python -m tests.benchmarks.data [--rounds 3]`.

A DataFrame of 1,000,000 × 20 floats goes into a kernel: as `give` does it, in other formats, and
as a pickle that a cell loads, in turns. Then its preview is made, and it comes back as an answer.
Prints the median and the worst seconds, and the size of the file.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kernel_agent.answers import decoded, keep
from kernel_agent.data import give
from kernel_agent.kernel import Kernel

LIMIT = 2.0  # seconds that the way in may take


def pickled(frame: Any, folder: Path) -> str:
    with (folder / "df.pickle").open("wb") as file:
        pickle.dump(frame, file, protocol=5)
    return f"import pickle\ndf = pickle.load(open({str(folder / 'df.pickle')!r}, 'rb'))"


def parquet(frame: Any, folder: Path) -> str:
    frame.to_parquet(folder / "df.parquet")
    return f"import pandas as pd\ndf = pd.read_parquet({str(folder / 'df.parquet')!r})"


def compressed(frame: Any, folder: Path) -> str:
    frame.to_feather(folder / "df.lz4", compression="lz4")
    return f"import pandas as pd\ndf = pd.read_feather({str(folder / 'df.lz4')!r})"


def given(frame: Any, folder: Path) -> str:
    return give({"df": frame}, folder=folder, cwd=folder.parent).source


WAYS: Mapping[str, Callable[[Any, Path], str]] = {
    "give": given,
    "pickle": pickled,
    "Feather, lz4": compressed,
    "Parquet": parquet,
}


def way_in(kernel: Kernel, way: Callable[[Any, Path], str], frame: Any, folder: Path) -> float:
    began = time.perf_counter()
    result = kernel.execute(way(frame, folder), counted=False)
    seconds = time.perf_counter() - began
    check = kernel.execute("df.shape")
    assert result.status == "ok", result
    assert check.outputs[0]["data"]["text/plain"] == str(frame.shape)
    return seconds


def answered(kernel: Kernel, frame: Any, folder: Path) -> float:
    began = time.perf_counter()
    result = kernel.execute("final_answer(df)")
    kept = keep(result, source=kernel.answer_folder, notebook=folder / "run.ipynb")
    assert kept.answer is not None
    value = decoded(kept.answer, folder=folder)
    seconds = time.perf_counter() - began
    assert value.equals(frame)
    return seconds


def show(what: str, times: list[float], folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.rglob("*.*") if file.is_file())
    seconds = f"{statistics.median(times):6.2f} s  (worst {max(times):.2f})"
    print(f"{what:<34} {seconds}  {size / 1e6:6.0f} MB")


def measure(what: str, frame: Any, rounds: int, folder: Path) -> None:
    print(f"{what}:")
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    with Kernel(cwd=folder) as kernel:
        kernel.execute("import pandas, pyarrow.feather, pyarrow.parquet")  # paid once by any way
        for _ in range(rounds):
            for name, way in WAYS.items():
                place = folder / name.partition(",")[0]
                place.mkdir(exist_ok=True)
                times[name].append(way_in(kernel, way, frame, place))
        for name in WAYS:
            show(f"  in: {name}", times[name], folder / name.partition(",")[0])
        began = time.perf_counter()
        assert kernel.previews("variables", ["df"])
        show("  preview", [time.perf_counter() - began], folder / "none")
        place = folder / "answer"
        place.mkdir()
        show("  out: final_answer, keep, answer", [answered(kernel, frame, place)], place)
    if (worst := max(times["give"])) > LIMIT:
        raise SystemExit(f"It took {worst:.2f} s, and {LIMIT:g} s are the limit.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    random = np.random.default_rng(0).random((1_000_000, 20))
    for what, values in (("random floats", random), ("two decimals", random.round(2))):
        frame = pd.DataFrame(values, columns=[f"c{n}" for n in range(20)])
        with tempfile.TemporaryDirectory() as folder:
            measure(what, frame, rounds, Path(folder))


if __name__ == "__main__":
    main()
