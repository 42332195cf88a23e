"""Being a guest in a kernel that another client started and uses at the same time."""

import threading
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from kernel_agent.errors import KernelBusyError, KernelError, KernelStartError
from kernel_agent.kernel import Kernel, attached


@pytest.fixture(scope="module")
def owned():
    """A kernel of another client: its manager and its client."""
    manager, client = start_new_kernel()
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture
def owner(owned):
    return owned[1]


@pytest.fixture
def guest(owned):
    with Kernel.attach(owned[0].connection_file) as kernel:
        yield kernel


def executed(client, source):
    """What the owner's client prints by `source`, from the messages that only it may get."""
    texts = []

    def take(message):
        if message["msg_type"] == "stream":
            texts.append(message["content"]["text"])

    reply = client.execute_interactive(source, timeout=30, output_hook=take, allow_stdin=False)
    assert reply["content"]["status"] == "ok"
    return "".join(texts)


@pytest.fixture
def patience(monkeypatch):
    """For how many seconds it is asked whether a kernel is free: fewer than usual."""
    monkeypatch.setattr(attached, "FREE_SECONDS", 0.4)
    return 0.4


class Running:
    """A cell of the owner, which is running from the beginning to the end of the block."""

    def __init__(self, client, tmp_path):
        self._client = client
        self._gate = tmp_path / "gate"
        self._begun = tmp_path / "begun"

    def __enter__(self):
        self._msg_id = self._client.execute(
            "import pathlib, time\n"
            f"pathlib.Path({str(self._begun)!r}).touch()\nprint('theirs')\n"
            f"while not pathlib.Path({str(self._gate)!r}).exists(): time.sleep(0.01)"
        )
        wait_for(self._begun.exists)

    def __exit__(self, *error):
        self._gate.touch()
        while (reply := self._client.get_shell_msg(timeout=30)) is not None:
            if reply["parent_header"]["msg_id"] == self._msg_id:
                assert reply["content"]["status"] == "ok", "it was interrupted"
                return


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_both_see_the_same_variables(owner, guest):
    executed(owner, "x = 20")
    assert guest.execute("x = x + 1; x").outputs[0]["data"]["text/plain"] == "21"
    assert executed(owner, "print(x)") == "21\n"
    assert guest.execute("final_answer(x)").answer
    assert guest.language == "python"
    assert guest.kernelspec["name"] == "python3"


def test_each_sees_only_its_own_outputs_and_replies(owner, guest):
    seen = []

    def theirs():
        seen.extend(executed(owner, f"print('theirs {n}')") for n in range(20))

    thread = threading.Thread(target=theirs)
    thread.start()
    ours = [guest.execute(f"print('ours {n}')") for n in range(20)]
    thread.join(30)
    assert [r.outputs[0]["text"] for r in ours] == [f"ours {n}\n" for n in range(20)]
    assert {len(r.outputs) for r in ours} == {1}
    assert seen == [f"theirs {n}\n" for n in range(20)]


def test_a_question_of_the_owners_cell_is_left_to_the_owner(owned, owner, guest):
    asked = threading.Event()

    def answer(message):
        asked.set()
        assert guest.is_alive
        owner.input("Ada")

    reply = owner.execute_interactive(
        "name = input('Who?')", timeout=30, allow_stdin=True, stdin_hook=answer
    )
    assert reply["content"]["status"] == "ok"
    assert asked.is_set()
    assert guest.execute("name").outputs[0]["data"]["text/plain"] == "'Ada'"


def test_a_kernel_that_executes_somebody_elses_code_is_reported_as_busy(
    owner, guest, tmp_path, patience
):
    with Running(owner, tmp_path):
        begun = time.monotonic()
        with pytest.raises(KernelBusyError, match=r"busy for at least \d+\.\d s") as caught:
            guest.execute("1")
        elapsed = time.monotonic() - begun
        assert patience <= caught.value.seconds <= elapsed + 5
        assert elapsed < 20
    assert guest.execute("1 + 1").status == "ok"


def test_who_comes_while_it_is_busy_is_told_so(owned, owner, tmp_path, patience):
    with (
        Running(owner, tmp_path),
        pytest.raises(KernelBusyError, match="Try again") as caught,
    ):
        Kernel.attach(owned[0].connection_file).start()
    assert caught.value.seconds > 0


def test_a_cell_that_waits_behind_the_owners_is_not_stopped_in_its_place(owner, guest, tmp_path):
    # As if the owner's cell had come between the question whether it is free and our cell.
    guest._process.check_free = lambda: None
    with Running(owner, tmp_path), pytest.raises(KernelBusyError):
        guest.execute("1", timeout=0.2)


def test_our_cell_over_its_time_is_interrupted_and_the_kernel_kept(owner, guest):
    executed(owner, "kept = 1")
    result = guest.execute("import time; print('on'); time.sleep(60)", timeout=0.3)
    assert result.status == "interrupted"
    assert result.outputs[0]["text"] == "on\n"
    assert executed(owner, "print(kept)") == "1\n"


def test_another_thread_can_interrupt_our_cell(guest):
    def interrupt(output):
        threading.Thread(target=guest.interrupt).start()

    source = "import time; print('on', flush=True); time.sleep(60)"
    assert guest.execute(source, timeout=30, listen=interrupt).status == "interrupted"


def test_leaving_and_restarting_do_nothing_to_the_owners_kernel(owned, owner):
    executed(owner, "still = 'here'")
    with Kernel.attach(owned[0].connection_file) as guest:
        with pytest.raises(KernelError, match=r"not restarted.*somebody else"):
            guest.restart()
        assert guest.execute("still").status == "ok"
    assert not guest.is_alive
    guest.shutdown()
    assert executed(owner, "print(still)") == "here\n"


@pytest.mark.slow
def test_a_cell_that_cannot_be_interrupted_is_left_running_and_said():
    manager, client = start_new_kernel()
    try:
        with Kernel.attach(manager.connection_file) as guest:
            with pytest.raises(KernelBusyError, match="cannot be interrupted"):
                guest.execute("pow(7, 10**9)", timeout=0.2)
            assert guest.is_alive
        assert manager.is_alive()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.parametrize(
    "how", ["shutdown_kernel", pytest.param("restart_kernel", marks=pytest.mark.slow)]
)
def test_the_end_of_the_owners_kernel_is_noticed_and_so_is_its_restart(how):
    manager, client = start_new_kernel()
    try:
        with Kernel.attach(manager.connection_file) as guest:
            begun = time.monotonic()
            result = guest.execute(
                "import time; print('on', flush=True); time.sleep(60)",
                timeout=40,
                listen=lambda output: getattr(manager, how)(now=True),
            )
            assert result.status == "died"
            assert result.outputs[0]["text"] == "on\n"
            assert "restarted" in result.reason
            assert time.monotonic() - begun < 20
            assert not guest.is_alive
            assert guest.execute("1").status == "died"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_kernel_that_has_ended_cannot_be_joined(tmp_path):
    manager, client = start_new_kernel()
    client.stop_channels()
    left_behind = tmp_path / "kernel-gone.json"
    left_behind.write_bytes(Path(manager.connection_file).read_bytes())
    manager.shutdown_kernel(now=True)
    with pytest.raises(KernelStartError, match="that kernel has ended"):
        Kernel.attach(left_behind).start()


def test_a_kernel_of_ours_is_found_by_its_files_name_alone():
    with Kernel() as host:
        name = host._process.manager.connection_file.rpartition("/")[2]
        with Kernel.attach(name) as guest:
            assert guest.execute("2 + 2").outputs[0]["data"]["text/plain"] == "4"
        assert host.execute("1").status == "ok"


@pytest.mark.parametrize("content", [None, "no JSON", "[]", '{"ip": "127.0.0.1"}'])
def test_what_is_no_connection_file_is_refused_at_once(tmp_path, content):
    file = tmp_path / "kernel-x.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KernelStartError, match=r"kernel-x.json.* connection file"):
        Kernel.attach(file)
