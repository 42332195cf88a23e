"""Functions of the host that the code in a kernel calls."""

import threading
import time

import numpy
import pytest
from jupyter_client.manager import start_new_kernel

from kernel_agent.border.codec import NotTransferable, decode, encode
from kernel_agent.errors import KernelError
from kernel_agent.kernel import Kernel
from kernel_agent.kernel.courier import MAGIC as MAGIC_IN_KERNEL
from kernel_agent.kernel.serving import MAGIC, Offer, Serving, tell_used
from kernel_agent.kernel.workers import MAX_WORKERS, Workers
from kernel_agent.steps import Usage

ECHO = '''def echo(value, *more, times: int = 1, **named) -> object:
    """Gives the value back.

    times: how often
    """
'''
OFFERS = {
    "echo": Offer(ECHO),
    "fail": Offer("def fail(kind: str, message: str = 'no'): pass"),
    "wait": Offer("def wait(what: str = '') -> str: ...", timeout=30),
    "hasty": Offer("def hasty(): ...", timeout=0.2),
    "meet": Offer("def meet(count: int) -> int: ..."),
}


class OddError(Exception):
    pass


class Host:
    """Functions for a kernel's code; those that wait are let go by `release`."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.release = threading.Event()
        self.begun = threading.Semaphore(0)
        self.barriers = {}

    def __call__(self, name, arguments):
        folder = self.kernel.border_folder
        args = [decode(value, folder=folder) for value in arguments["args"]]
        kwargs = {key: decode(value, folder=folder) for key, value in arguments["kwargs"].items()}
        return encode(getattr(self, name)(*args, **kwargs), folder=folder)

    def echo(self, value, *more, times=1, **named):
        return [value, *more] * times if more or times > 1 else value

    def fail(self, kind, message="no"):
        kinds = {"KeyError": KeyError, "OddError": OddError, "StopIteration": StopIteration}
        raise kinds.get(kind, ValueError)(message)

    def wait(self, what=""):
        self.begun.release()
        assert self.release.wait(60)
        return what

    hasty = wait

    def meet(self, count):
        barrier = self.barriers.setdefault(count, threading.Barrier(count))
        barrier.wait(20)
        return count


@pytest.fixture(scope="module")
def offering(shared):
    shared.offer(OFFERS)
    return shared


@pytest.fixture
def host(offering, kernel):
    host = Host(kernel)
    yield host
    host.release.set()


@pytest.fixture
def run(host):
    def run(source, **options):
        return host.kernel.execute(source, **{"serve": host, "timeout": 30, **options})

    return run


def shown(result):
    assert result.status == "ok", result
    return result.outputs[-1]["data"]["text/plain"]


def text_of(result):
    return "".join(o["text"] for o in result.outputs if o["output_type"] == "stream")


def error_of(result):
    error = result.outputs[-1]
    assert error["output_type"] == "error", result
    return f"{error['ename']}: {error['evalue']}"


def test_both_sides_agree_on_how_a_letter_begins():
    assert MAGIC == MAGIC_IN_KERNEL


def test_a_call_returns_what_the_host_returns_and_is_recorded(run):
    result = run("echo((1, {'a': b'x'}), 2, times=2)")
    assert shown(result) == "[(1, {'a': b'x'}), 2, (1, {'a': b'x'}), 2]"
    (call,) = result.tool_calls
    assert (call.name, call.error) == ("echo", "")
    assert decode(call.arguments["args"], folder=None) == [(1, {"a": b"x"}), 2]
    assert call.arguments["kwargs"] == {"times": 2}
    assert decode(call.result, folder=None) == [(1, {"a": b"x"}), 2] * 2
    assert 0 < call.seconds < 10


def test_a_function_shows_its_signature_and_its_docstring(run):
    result = run("import inspect\nprint(inspect.signature(echo), echo.__name__)\nhelp(echo)")
    assert "(value, *more, times: 'int' = 1, **named) -> 'object' echo\n" in text_of(result)
    assert "Gives the value back." in text_of(result)
    assert "times: how often" in run("print(inspect.getsource(echo))").outputs[0]["text"]


def test_arguments_that_do_not_fit_fail_as_pythons_before_anything_is_sent(run):
    result = run("echo()")
    assert error_of(result) == "TypeError: echo() missing 1 required positional argument: 'value'"
    assert result.tool_calls == ()
    result = run("echo(1, data={'x': [0, object()]})")
    assert error_of(result).startswith("NotTransferable: data['x'][1] (object) cannot be passed")
    assert result.tool_calls == ()


def test_the_hosts_errors_arrive_with_their_types_and_messages_and_no_traceback_of_ours(run):
    assert error_of(run("fail('ValueError')")) == "ValueError: no"
    assert run("try: fail('KeyError', 'k')\nexcept KeyError as e: print(e)").status == "ok"
    result = run("fail('OddError', 'strange')")
    assert error_of(result) == "OddError: strange"
    assert result.tool_calls[0].error == "OddError: strange"
    assert "/kernel_agent/" not in "\n".join(result.outputs[-1]["traceback"])
    # As Python's own a generator or a loop would take it for the end.
    run("try: fail('StopIteration')\nexcept Exception as error: kept = error")
    source = "from kernel_agent_calling import ToolFailure\nisinstance(kept, ToolFailure)"
    assert shown(run(source)) == "True"


def test_map_calls_all_at_once_and_keeps_the_order(run):
    assert shown(run("meet.map([8] * 8)")) == str([8] * 8)
    assert shown(run("echo.map(range(3), times=2)")) == "[[0, 0], [1, 1], [2, 2]]"
    result = run("fail.map(['OddError', 'ValueError'], message='m')")
    assert error_of(result) == "OddError: m"
    assert len(result.tool_calls) == 2
    source = (
        "[type(e).__name__ for e in fail.map(['OddError', 'KeyError'], return_exceptions=True)]"
    )
    assert shown(run(source)) == "['OddError', 'KeyError']"


def test_calls_of_threads_go_on_together(run):
    source = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(6) as pool: results = list(pool.map(meet, [6] * 6))\nresults"
    )
    assert shown(run(source)) == str([6] * 6)


def test_async_code_goes_on_while_calls_are_made(run):
    source = (
        "import asyncio\nticks = 0\n"
        "async def tick():\n    global ticks\n"
        "    while True:\n        ticks += 1\n        await asyncio.sleep(0.001)\n"
        "ticking = asyncio.create_task(tick())\n"
        "both = await asyncio.gather(meet.acall(2), meet.acall(2))\n"
        "late = [await echo.acall(n) for n in range(20)]\n"
        "ticking.cancel()\n(both, late[-1], ticks > 3)"
    )
    assert shown(run(source)) == "([2, 2], 19, True)"


def test_a_function_with_an_async_stub_is_awaited(run, host):
    host.kernel.offer({**OFFERS, "echo": Offer("async def echo(value): ...")})
    try:
        assert shown(run("await echo(5)")) == "5"
    finally:
        host.kernel.offer(OFFERS)


def test_arrays_arrive_on_both_sides_by_file_and_can_be_changed(run, host):
    assert host.kernel.border_folder.is_dir()
    source = (
        "import numpy\na = numpy.arange(100_000.0)\nb = echo(a)\nb[0] = 5\n"
        "(a[1:] == b[1:]).all() and echo(a)[0] == 0"
    )
    result = run(source)
    assert shown(result) == "np.True_"
    encoded = result.tool_calls[0].result
    assert "file" in encoded
    kept = decode(encoded, folder=host.kernel.border_folder)
    assert numpy.array_equal(kept, numpy.arange(100_000.0))


def test_input_is_still_answered_and_still_fails_at_once_where_nobody_is_asked(run):
    source = "name = input('Who? ')\n(name, echo(1), input('And? '))"
    answers = {"Who? ": "Ada", "And? ": "Bob"}
    result = run(source, ask=lambda prompt, password: answers[prompt])
    assert shown(result) == "('Ada', 1, 'Bob')"
    assert result.inputs == ("Ada", "Bob")
    assert error_of(run("input()")).startswith("StdinNotImplementedError")
    assert shown(run("import sys\ninput = None\nsys.stdin = None\necho(2)")) == "2"


def test_input_can_be_asked_for_while_threads_call(run):
    source = (
        "import threading\nstop = threading.Event()\ncounts = [0] * 4\n"
        "def work(n):\n    while not stop.is_set():\n        counts[n] += echo(1)\n"
        "threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]\n"
        "for t in threads: t.start()\n"
        "said = [input(str(n)) for n in range(10)]\nstop.set()\n"
        "for t in threads: t.join()\n(said == [str(n) for n in range(10)], min(counts) > 0)"
    )
    result = run(source, ask=lambda prompt, password: prompt, max_calls=10**6)
    assert shown(result) == "(True, True)"


def test_who_waits_is_interrupted_and_the_next_call_gets_its_own_answer(run, host):
    begun = host.begun

    def interrupt():
        assert begun.acquire(timeout=20)
        host.kernel.interrupt()

    threading.Thread(target=interrupt).start()
    result = run("wait('late')")
    assert result.status == "interrupted"
    assert result.stopped_by == "interrupt"
    assert error_of(result).startswith("KeyboardInterrupt")  # with words only while it waits
    assert result.tool_calls[0].error.startswith("Cancelled: The cell was interrupted")
    host.release.set()
    assert shown(run("echo('mine')")) == "'mine'"


def test_an_interrupted_cell_does_not_wait_for_the_calls_of_its_threads(run, host):
    def interrupt():
        for _ in range(4):
            assert host.begun.acquire(timeout=20)
        host.kernel.interrupt()

    threading.Thread(target=interrupt).start()
    source = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: list(pool.map(wait, 'abcdefgh'))"
    )
    started = time.monotonic()
    result = run(source)
    assert result.status == "interrupted"
    assert time.monotonic() - started < 10
    assert {call.error.partition(":")[0] for call in result.tool_calls} == {"Cancelled"}
    assert shown(run("echo(1)")) == "1"


def test_the_time_of_a_call_is_the_cells(run):
    result = run("wait()", timeout=0.3)
    assert result.status == "interrupted"
    assert "after 0.3 s" in result.reason


def test_a_call_over_its_own_time_fails_and_its_late_result_is_dropped(run, host):
    result = run("try: hasty()\nexcept TimeoutError as error: print(error)\necho(3)")
    assert text_of(result) == "hasty() took longer than its 0.2 s.\n"
    host.release.set()
    assert shown(run("echo(4)")) == "4"
    assert result.tool_calls[0].error == "TimeoutError: hasty() took longer than its 0.2 s."


@pytest.mark.slow
def test_calls_that_hang_take_nobodys_place(run, host):
    source = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def late(_):\n    try: hasty()\n    except TimeoutError: return 1\n"
        f"with ThreadPoolExecutor() as pool: late = sum(pool.map(late, range({MAX_WORKERS + 1})))\n"
        "late, echo('alive')"
    )
    assert shown(run(source)) == f"({MAX_WORKERS + 1}, 'alive')"


def test_a_cell_makes_no_more_calls_than_it_may(run):
    result = run("for n in range(9): echo(n)", max_calls=5)
    assert (
        error_of(result) == "RuntimeError: echo() was not called: a cell may make 5 calls in all."
    )
    assert len(result.tool_calls) == 5


def test_a_call_without_a_cell_or_without_anyone_who_serves_fails_at_once(run, host):
    assert "whose calls are answered" in error_of(host.kernel.execute("echo(1)", timeout=20))
    source = (
        "import threading\nsaid = []\ngo = threading.Event()\n"
        "def later():\n    go.wait()\n    try: echo(1)\n    except Exception as e: said.append(e)\n"
        "thread = threading.Thread(target=later); thread.start()"
    )
    run(source)
    source = "go.set(); thread.join(20); [type(e).__name__ for e in said]"
    assert shown(host.kernel.execute(source, timeout=30)) == "['RuntimeError']"


def test_a_call_that_is_open_when_its_cell_ends_is_cancelled(run, host):
    source = (
        "import threading\nsaid = []\n"
        "def later():\n    try: wait()\n    except Exception as e: said.append(str(e))\n"
        "thread = threading.Thread(target=later); thread.start()\necho(1)"
    )
    assert run(source).tool_calls[0].error == "Cancelled: the cell is over."
    assert "wait() was called" in shown(run("thread.join(20); said[0]"))


@pytest.mark.filterwarnings("ignore")
def test_a_forked_child_is_told_that_it_cannot_call(run):
    source = (
        "import os\npid = os.fork()\n"
        "if pid == 0:\n"
        "    try: echo(1)\n"
        "    except RuntimeError as error: os._exit(7 if 'child' in str(error) else 8)\n"
        "    os._exit(9)\n"
        "os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), echo(2)"
    )
    assert shown(run(source)) == "(7, 2)"


def test_a_lost_answer_is_asked_for_again(run):
    source = (
        "session, lost = get_ipython().kernel.session, []\n"
        "import sys\nsys.modules['kernel_agent_courier'].RESUME_SECONDS = 0.1\n"
        "receive = session.recv\n"
        "def lose(socket, *args, **kwargs):\n"
        "    got = receive(socket, *args, **kwargs)\n"
        "    if socket is get_ipython().kernel.stdin_socket and not lost:\n"
        "        lost.append(got)\n        raise ValueError('lost')\n"
        "    return got\n"
        "session.recv = lose\n"
        "try: results = echo(5), echo(6)\nfinally: session.recv = receive\n(results, len(lost))"
    )
    result = run(source)
    assert shown(result) == "((5, 6), 1)"
    assert len(result.tool_calls) == 2


def test_functions_are_no_variables_and_are_back_after_a_reset_but_never_take_a_name(run, host):
    assert run("x = echo(1)").variables == {"x": "1"}
    assert not set(host.kernel.report("names()")) & set(OFFERS)
    assert run("echo = 5").variables == {"echo": "5"}
    assert shown(run("echo")) == "5"
    run("del echo")
    assert shown(run("echo(6)")) == "6"
    run("%reset -f")
    assert shown(run("echo(7)")) == "7"


def test_functions_can_be_taken_away_and_input_is_the_kernels_own_again(run, host):
    host.kernel.offer({})
    try:
        assert error_of(run("echo(1)")).startswith("NameError")
        assert shown(run("'_input_request' in vars(get_ipython().kernel)")) == "False"
        assert shown(run("input('x')", ask=lambda prompt, password: "y")) == "'y'"
    finally:
        host.kernel.offer(OFFERS)
    assert shown(run("echo(1)")) == "1"


def test_functions_are_there_after_a_restart_and_a_death_drops_what_was_open(host, run):
    folder = host.kernel.border_folder
    result = run(
        "import os, threading\nthreading.Thread(target=wait, daemon=True).start()\n"
        "echo(1)\nos._exit(3)"
    )
    assert result.status == "died"
    assert [call.error for call in result.tool_calls] == ["Cancelled: the cell is over.", ""]
    host.kernel.restart()
    assert shown(run("echo(2)")) == "2"
    assert host.kernel.border_folder == folder


def test_what_a_call_has_used_is_in_its_record(offering):
    usage = Usage(prompt_tokens=5)

    def serve(name, arguments):
        tell_used(usage, "helper.ipynb")
        if arguments["args"] == [1]:
            return 2
        if arguments["args"] == [3]:
            time.sleep(60)
        raise RuntimeError("no")

    result = offering.execute("echo(1)", serve=serve, timeout=20)
    assert shown(result) == "2"
    failed = offering.execute("echo(2)", serve=serve, timeout=20)
    late = offering.execute("echo(3)", serve=serve, timeout=1)
    calls = [*result.tool_calls, *failed.tool_calls, *late.tool_calls]
    assert [call.error[:9] for call in calls] == ["", "RuntimeEr", "Cancelled"]
    assert [(call.usage, call.transcript) for call in calls] == [(usage, "helper.ipynb")] * 3


def test_a_result_that_is_no_json_is_an_error_in_the_cell(offering):
    result = offering.execute("echo(1)", serve=lambda *call: object(), timeout=20)
    assert error_of(result).startswith("TypeError")

    def refuse(name, arguments):
        raise NotTransferable("result", "Odd", "no")

    result = offering.execute("echo(1)", serve=refuse, timeout=20)
    assert error_of(result).startswith("NotTransferable: result (Odd)")


def test_an_offer_that_cannot_be_installed_says_why(offering):
    with pytest.raises(ValueError, match="one `def`"):
        Offer("x = 1")
    with pytest.raises(ValueError, match="another name"):
        offering.offer({"other": OFFERS["echo"]})
    with pytest.raises(KernelError, match="NameError"):
        offering.offer({"odd": Offer("def odd(x=unknown): ...")})
    offering.offer(OFFERS)


def test_the_folder_is_gone_with_the_kernel():
    with Kernel() as kernel:
        kernel.offer(OFFERS)
        folder = kernel.border_folder
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
    assert kernel.border_folder is None


@pytest.mark.parametrize(
    "letter",
    ["", "no JSON", "[]", "{}", '{"cell": "CELL", "calls": 5, "cancelled": [], "waiting": []}'],
)
def test_a_letter_that_is_none_is_passed_over(letter):
    serving = Serving(lambda *call: 1, OFFERS, Workers(), max_calls=9, wake=lambda: None)
    (cell,) = serving.marker.values()
    serving.take(MAGIC + letter.replace("CELL", cell))
    serving.take(MAGIC + "[" * 100_000)
    assert serving.answer() == ""


def test_a_guest_offers_functions_and_takes_them_away_without_disturbing_the_owner():
    manager, client = start_new_kernel()
    try:
        with Kernel.attach(manager.connection_file) as guest:
            guest.offer(OFFERS)
            host = Host(guest)
            assert shown(guest.execute("echo(1)", serve=host, timeout=20)) == "1"
            assert owners_input(client) == "Ada"
            assert owners_error(client, "echo(1)") == "RuntimeError"
            assert shown(guest.execute("echo(name)", serve=host, timeout=20)) == "'Ada'"
        assert owners_error(client, "echo(1)") == "NameError"
        assert owners_input(client) == "Ada"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def owners_input(client):
    client.execute_interactive(
        "name = input('Who?')",
        timeout=30,
        allow_stdin=True,
        stdin_hook=lambda message: client.input("Ada"),
    )
    reply = client.execute_interactive("", timeout=30, user_expressions={"name": "name"})
    return eval(reply["content"]["user_expressions"]["name"]["data"]["text/plain"])


def owners_error(client, source):
    options = {"timeout": 30, "allow_stdin": False, "output_hook": lambda message: None}
    return client.execute_interactive(source, **options)["content"].get("ename")
