"""How a kernel starts where it is not easy, and what is said where it cannot."""

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel_agent.errors import KernelStartError
from kernel_agent.kernel import Kernel
from kernel_agent.kernel.runtime import LONGEST_FOLDER, new_runtime_folder

PROGRAMS = str(Path(sys.executable).parent)


def works(kernel):
    return kernel.execute("6 * 7").outputs[0]["data"]["text/plain"] == "42"


@contextmanager
def full_disk(folder):
    """A small file system at `folder` without room for one byte more."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("a tmpfs can only be mounted with the rights for it")
    try:
        with pytest.raises(OSError, match="No space"):
            (folder / "filling").write_bytes(bytes(1_000_000))
        yield str(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Sets every place where a kernel's files may go."""

    def use(place):
        for name in ("JUPYTER_RUNTIME_DIR", "TMPDIR", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, place)

    return use


def test_a_kernel_works_where_the_runtime_folder_is_too_long_for_a_socket(tmp_path, places):
    long = tmp_path / ("long" * 30)
    long.mkdir()
    places(str(long))
    with Kernel() as kernel:
        assert works(kernel)


def test_a_kernel_works_where_the_runtime_folder_cannot_be_made(tmp_path, places):
    (tmp_path / "file").touch()
    places(str(tmp_path / "file" / "folder"))
    with Kernel() as kernel:
        assert works(kernel)


def test_a_kernel_works_where_the_runtime_folder_is_full(tmp_path, places):
    with full_disk(tmp_path / "full") as full:
        places(full)
        with Kernel() as kernel:
            assert works(kernel)


def test_without_any_place_for_its_files_each_is_named_with_its_fault():
    with pytest.raises(OSError, match=r"gone': No such file.*xx': the path is too long.*TMPDIR"):
        new_runtime_folder(["/gone", "/" + "x" * LONGEST_FOLDER])


@pytest.mark.parametrize(
    "content", ["no JSON", "{}", '{"argv": [], "display_name": "Broken", "language": "none"}']
)
def test_a_kernelspec_that_makes_no_sense_is_a_clear_error(tmp_path, monkeypatch, content):
    folder = tmp_path / "kernels" / "senseless"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(content)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(KernelStartError, match="'senseless' did not start"):
        Kernel("senseless", start_timeout=10).start()


def test_a_kernel_whose_program_does_not_exist_is_a_clear_error(tmp_path, monkeypatch):
    folder = tmp_path / "kernels" / "empty"
    folder.mkdir(parents=True)
    spec = {"argv": ["no-such-program", "{connection_file}"], "display_name": "E", "language": "e"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(KernelStartError, match=r"no-such-program.*not found"):
        Kernel("empty").start()


@pytest.mark.slow
def test_sixteen_kernels_start_at_the_same_time():
    together = threading.Barrier(16, timeout=60)

    def start(number):
        together.wait()
        with Kernel(start_timeout=120) as kernel:
            return kernel.execute(f"{number} + 1").outputs[0]["data"]["text/plain"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(start, range(16))) == [str(number + 1) for number in range(16)]


def test_an_environment_without_ipykernel_is_told_with_the_command_that_installs_it(tmp_path):
    folder = tmp_path / "bare"
    make = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(make, check=True, timeout=60)
    command = rf"{folder}\S* -m pip install 'ipykernel"
    with pytest.raises(KernelStartError, match=rf"ipykernel is not installed there.*{command}"):
        Kernel(python=folder).start()


def test_a_kernel_runs_in_another_virtual_environment_as_if_activated(tmp_path):
    folder = tmp_path / "other"
    make = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(make, check=True, timeout=60)
    # What this interpreter has installed, and nothing of ours, is what that one has.
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "all.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
    source = "import os, shutil, sys\nprint(sys.prefix, shutil.which('python'), sep='\\n')"
    with Kernel(python=folder, cwd=tmp_path) as kernel:
        printed = kernel.execute(source).outputs[0]["text"].split()
        assert kernel.execute("final_answer(1)").answer
        assert kernel.kernelspec["display_name"] == "Python (other)"
    assert printed == [str(folder), str(folder / "bin" / "python")]


def test_an_interpreter_that_does_not_exist_is_named():
    with pytest.raises(KernelStartError, match=r"no interpreter '/no/such/python'.*path"):
        Kernel(python="/no/such/python").start()


def test_another_python_and_another_kernel_exclude_each_other():
    with pytest.raises(KernelStartError, match="'ir' did not start: `python` and `packages`"):
        Kernel("ir", packages=["polars"]).start()


@pytest.mark.parametrize("package", ["", "--index-url=http://elsewhere", "a\nb"])
def test_what_is_no_package_is_refused(package):
    with pytest.raises(KernelStartError, match=r"is no package.*polars"):
        Kernel(packages=[package]).start()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two threads that want the same environment at once; what each was told, and the cache."""
    cache = tmp_path_factory.mktemp("cache")
    lines = [[], []]

    def start(heard):
        with Kernel(packages=["iniconfig"], on_progress=heard.append, cwd=cache) as kernel:
            source = "import importlib.util as u, iniconfig\nprint(u.find_spec('pandas'))"
            return kernel.execute(source).outputs[0]["text"], kernel.kernelspec["display_name"]

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        answers = list(pool.map(start, lines))
    return cache, lines, answers


@pytest.mark.slow
def test_packages_are_there_in_an_environment_of_their_own(made):
    assert made[2] == [("None\n", "Python with iniconfig")] * 2


@pytest.mark.slow
def test_two_that_want_the_same_environment_make_it_once(made):
    first, second = sorted(made[1], key=len, reverse=True)
    assert "iniconfig" in first[0]
    assert len(first) > 3
    assert [line for line in second if not line.startswith("Waiting")] == []


@pytest.mark.slow
def test_an_environment_that_was_not_finished_is_made_anew(made, monkeypatch):
    cache, _, _ = made
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    (marker,) = cache.rglob("kernel-agent-requirements.txt")
    marker.unlink()
    lines = []
    with Kernel(packages=["iniconfig"], on_progress=lines.append) as kernel:
        assert works(kernel)
    assert lines
    lines.clear()
    with Kernel(packages=["iniconfig", " iniconfig"], on_progress=lines.append) as kernel:
        assert works(kernel)
    assert lines == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv", path=PROGRAMS) is None, reason="needs uv: pip install uv")
def test_uv_makes_the_environment_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", PROGRAMS, prepend=os.pathsep)
    lines = []
    with Kernel(packages=["iniconfig"], on_progress=lines.append) as kernel:
        assert works(kernel)
        assert kernel.execute("import iniconfig, pip").status == "ok"
    assert any(line.startswith("Creating virtual environment") for line in lines)
    with pytest.raises(KernelStartError, match="no-such-package-as-this-one was not found"):
        Kernel(packages=["no-such-package-as-this-one"]).start()


@pytest.mark.slow
def test_a_package_that_does_not_exist_is_said_in_the_installers_words(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    package = "no-such-package-as-this-one"
    with pytest.raises(KernelStartError, match=rf"could not be made.*{package}") as caught:
        Kernel(packages=[package]).start()
    assert "\n" not in str(caught.value)
    assert [p for p in (tmp_path / "kernel-agent" / "environments").iterdir() if p.is_dir()] == []


def test_installers_see_where_to_look_and_no_key(monkeypatch):
    from kernel_agent.kernel.environments import _installers_env
    from kernel_agent.kernel.variables import kernel_environment

    monkeypatch.setenv("PIP_INDEX_URL", "https://index")
    monkeypatch.setenv("https_proxy", "http://proxy")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    seen = _installers_env(kernel_environment())
    assert seen["PIP_INDEX_URL"] == "https://index"
    assert seen["https_proxy"] == "http://proxy"
    assert not {"OPENAI_API_KEY", "PYTHONPATH"} & set(seen)
