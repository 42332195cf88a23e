"""Whatever a cell puts out comes to its result: whole, once, and in the order it was made."""

import base64
import threading

import pytest

from kernel_agent.kernel import Kernel
from kernel_agent.observation import observe

FIGURE = "f = Figure(figsize=(1, 1)); f.subplots().plot([1, 2])"


@pytest.fixture
def run(shared):
    def execute(source, **options):
        result = shared.execute(source, timeout=30, **options)
        assert result.status == "ok", observe(result).text
        return result.outputs

    return execute


def text_of(outputs):
    return "".join(o["text"] for o in outputs if o["output_type"] == "stream")


def plain(output):
    return output["data"]["text/plain"]


def is_png(output):
    png = base64.b64decode(output.get("data", {}).get("image/png", ""))
    return png.startswith(b"\x89PNG")


def test_stdout_and_stderr_stay_in_the_order_in_which_they_were_printed(run):
    outputs = run(
        "import sys\nfor n in range(3):\n    print('out', n)\n    print('err', n, file=sys.stderr)"
    )
    texts = [(o["name"], o["text"]) for o in outputs]
    assert texts == [
        (name, f"{word} {n}\n")
        for n in range(3)
        for name, word in [("stdout", "out"), ("stderr", "err")]
    ]


def test_what_subprocesses_print_comes_between_the_prints_around_it(run):
    outputs = run(
        "import os, subprocess\nfor n in range(20):\n"
        "    print('before', n)\n    os.system(f'echo inside {n}')\n"
        "    subprocess.run(['echo', f'again {n}'])\n    print('after', n)"
    )
    lines = [f"{word} {n}" for n in range(20) for word in ("before", "inside", "again", "after")]
    assert text_of(outputs).splitlines() == lines


def test_a_subprocess_and_a_display_stay_in_order(run):
    outputs = run("import os\nos.system('echo one')\ndisplay('two')\nos.system('echo three');")
    assert [o.get("text") or plain(o) for o in outputs] == ["one\n", "'two'", "three\n"]


def test_characters_of_several_bytes_are_whole_in_a_subprocesss_output(run, tmp_path):
    text = "é€😀ñ" * 10_000
    path = tmp_path / "text"
    path.write_text(text, encoding="utf-8")
    assert text_of(run(f"import os\nos.system('cat {path}');")) == text


def test_half_a_character_that_a_subprocess_leaves_is_shown_as_broken_and_delays_nothing(run):
    outputs = run(
        "import os, time\nos.write(1, b'half \\xe2\\x82')\ntime.sleep(0.5)\nprint('then')"
    )
    assert text_of(outputs) == "half \ufffdthen\n"


def test_text_that_is_no_unicode_is_not_lost(run):
    assert text_of(run(r"print('before \ud800 after')")) == "before \ufffd after\n"
    assert text_of(run(r"print('\ud83d\ude00')")) == "😀\n"


def test_a_result_that_is_no_unicode_is_not_lost(run):
    (output,) = run(
        r"from IPython.display import Markdown, display; display(Markdown('a \udcff b'))"
    )
    assert output["data"]["text/markdown"].startswith("a ")


def test_a_display_is_updated_in_place_and_by_a_later_cell_where_that_is(run):
    outputs = run("h = display('old', display_id='here')\nprint('between')\nh.update('new')")
    assert [o.get("text") or plain(o) for o in outputs] == ["'new'", "between\n"]
    (update,) = run("h.update('newer')\nh.update('newest')")
    assert plain(update) == "'newest'"
    assert update["metadata"]["kernel_agent"] == {"updates": "here"}


def test_clear_output_clears_at_once_or_when_the_next_output_comes(run):
    source = "from IPython.display import clear_output\nprint('old')\nclear_output(wait={})\n"
    assert run(source.format(False)) == ()
    assert text_of(run(source.format(True))) == "old\n"
    assert text_of(run(source.format(True) + "print('new')")) == "new\n"


def test_a_thread_that_outlives_its_cell_still_prints_for_that_cell(run, shared):
    first = shared.execute(
        "import threading\ngo = threading.Event()\ndef work():\n"
        "    go.wait(20)\n    print('from the thread')\n    display('its display')\n"
        "thread = threading.Thread(target=work)\nthread.start()\nmine = 1"
    )
    own, late, shown, after = run("print('own')\ngo.set()\nthread.join(20)\nprint('after')")
    assert (own["text"], after["text"]) == ("own\n", "after\n")
    assert late["text"] == f"[late output of cell {first.execution_count}]\nfrom the thread\n"
    assert shown["metadata"]["kernel_agent"] == {"late": f"cell {first.execution_count}"}


def test_a_thread_that_ends_within_its_cell_prints_like_any_code(run):
    source = (
        "import threading\nt = threading.Thread(target=print, args=['hi'])\nt.start(); t.join()"
    )
    assert run(source) == ({"output_type": "stream", "name": "stdout", "text": "hi\n"},)


def test_the_threads_of_a_pool_print_for_the_cell_that_gives_them_work(run):
    run("from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(1)")
    run("pool.submit(print, 'first').result()")
    assert text_of(run("pool.submit(print, 'second').result()")) == "second\n"


def test_a_task_of_asyncio_that_outlives_its_cell_still_prints_for_that_cell(run):
    run(
        "import asyncio\nopen_gate, done = asyncio.Event(), asyncio.Event()\n"
        "async def work():\n    await open_gate.wait()\n    print('task')\n    done.set()\n"
        "task = asyncio.create_task(work())"
    )
    (late,) = run("open_gate.set()\nawait done.wait();")
    assert late["text"].startswith("[late output of cell ")
    assert late["text"].endswith("]\ntask\n")


def test_what_a_thread_prints_while_no_cell_runs_comes_with_the_next_one(run, shared, tmp_path):
    printed = tmp_path / "printed"
    run(
        "import pathlib, threading, time\n"
        "def later():\n    time.sleep(0.3)\n    print('meanwhile')\n"
        f"    pathlib.Path({str(printed)!r}).touch()\nthreading.Thread(target=later).start()"
    )
    waiting = threading.Event()
    for _ in range(200):  # questions of our own, silently, while the thread prints
        shared.report("packages()")
        if printed.exists():
            break
        waiting.wait(0.05)
    shared.report("packages()")
    assert "meanwhile" in text_of(run("import time; time.sleep(0.3)"))


def test_an_exception_group_comes_with_its_exceptions(shared):
    result = shared.execute("raise ExceptionGroup('two', [ValueError('a'), KeyError('b')])")
    assert result.outputs[-1]["ename"] == "ExceptionGroup"
    assert "ValueError: a" in observe(result).text


def test_a_widget_has_its_text_form(run):
    source = (
        "class Widget:\n    def _repr_mimebundle_(self, **kwargs):\n"
        "        model = {'model_id': 'abc', 'version_major': 2, 'version_minor': 0}\n"
        "        return {'application/vnd.jupyter.widget-view+json': model,"
        " 'text/plain': 'IntSlider(value=3)'}\nWidget()"
    )
    (output,) = run(source)
    assert plain(output) == "IntSlider(value=3)"
    assert output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == "abc"


def test_a_figure_without_pyplot_is_shown():
    with Kernel() as kernel:  # in which nobody has imported pyplot
        source = f"from matplotlib.figure import Figure\n{FIGURE}\nf"
        (output,) = kernel.execute(source, timeout=30).outputs
        assert is_png(output)
        seen = "import sys; 'matplotlib.pyplot' in sys.modules"
        assert plain(kernel.execute(seen).outputs[0]) == "False"


@pytest.mark.parametrize("backend", ["Agg", "svg"])
def test_figures_of_a_backend_that_only_draws_are_shown(run, backend):
    outputs = run(
        f"import matplotlib\nmatplotlib.use({backend!r})\nimport matplotlib.pyplot as plt\n"
        "plt.figure(figsize=(1, 1)); plt.plot([1]); plt.show(); print('after the first')\n"
        "plt.figure(figsize=(1, 1)); plt.plot([2]);"
    )
    assert [is_png(output) for output in outputs] == [True, False, True]
    assert text_of(outputs) == "after the first\n"
    assert run("plt.get_fignums()")[0]["data"]["text/plain"] == "[]"


def test_a_figure_is_shown_once_under_the_notebooks_own_backend(run):
    outputs = run(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\n"
        "plt.figure(figsize=(1, 1)); plt.plot([1]); plt.show(); print('after')"
    )
    assert [is_png(output) for output in outputs] == [True, False]


def test_a_figure_that_was_drawn_before_an_error_is_shown(shared):
    source = "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1)); plt.plot([1])\n1 / 0"
    result = shared.execute(source, timeout=30)
    assert result.status == "error"
    assert any(map(is_png, result.outputs))
