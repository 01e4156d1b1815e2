from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from keepsight.errors import CancelledError, DataError, KeepsightError, TrainingError
from keepsight.loop.child import _spawner, run_child

HERE = Path(__file__).parent


def run(
    function: str,
    payload: Mapping[str, Any] | None = None,
    *,
    cancel: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda _: None,
    **options: Any,
) -> dict[str, Any]:
    env = {"PYTHONPATH": str(HERE), **options.pop("env", {})}
    return run_child(
        f"child_targets:{function}", payload or {}, cancel=cancel, on_progress=on_progress, env=env, **options
    )


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie that waits for its parent to look."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def gone(pid: int, *, within_s: float = 20.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


class Parent:
    """A process of its own that runs ``linger`` (or another target) and prints the child's pids."""

    SCRIPT = textwrap.dedent(
        """
        import json, sys
        from keepsight.loop.child import run_child
        run_child(
            sys.argv[1], {},
            cancel=lambda: False,
            on_progress=lambda pids: print(json.dumps(dict(pids)), flush=True),
        )
        """
    )

    def __init__(self, target: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT, f"child_targets:{target}"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(HERE)},
        )
        assert self.process.stdout is not None
        self.pids: dict[str, int] = json.loads(self.process.stdout.readline())
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def parent() -> Iterator[Callable[[str], Parent]]:
    started: list[Parent] = []

    def start(target: str) -> Parent:
        started.append(Parent(target))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def test_the_result_and_the_progress_arrive_whole_and_in_order() -> None:
    payload = {"label": "Käse “本” 🧀", "steps": 200, "filler": "x" * 300_000}
    seen: list[Mapping[str, Any]] = []
    assert run("echo", payload, on_progress=seen.append) == payload
    assert seen == [{"step": step, "label": payload["label"]} for step in range(200)]


def test_the_child_is_nice_and_its_libraries_find_their_settings(tmp_path: Path) -> None:
    found = run("surroundings", nice=7, threads=3, cwd=tmp_path, env={"EXTRA": "ä"})
    assert found["nice"] == os.nice(0) + 7
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    assert [found[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL")] == ["3", "3", "3"]
    assert found["EXTRA"] == "ä"
    assert found["cwd"] == str(tmp_path)
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert run("surroundings", cores=1)["cores"] == 1
    assert found["stdin"] == "", "a library that reads stdin must not swallow the task"


def test_megabytes_of_output_do_not_block_the_child() -> None:
    assert run("shout") == {"shouted": True}


def test_an_error_for_the_user_travels_whole() -> None:
    with pytest.raises(DataError) as caught:
        run("refuse")
    assert type(caught.value) is DataError
    assert str(caught.value) == "Only one class, “Äpfel”. Expected: two classes. What to do: Add pictures."
    assert caught.value.code == "data_insufficient"
    assert caught.value.details == {"classes": ["Äpfel"], "n": 1}


def test_an_error_class_of_a_plugin_comes_back_as_its_nearest_ancestor() -> None:
    with pytest.raises(DataError) as caught:
        run("refuse_as_plugin")
    assert caught.value.code == "plugin_trouble"
    assert caught.value.status == 422


def test_any_other_exception_is_a_training_error_with_its_traceback() -> None:
    with pytest.raises(TrainingError, match="ZeroDivisionError: division by zero") as caught:
        run("stumble", {"zero": 0})
    assert "in stumble" in caught.value.details["traceback"]


def test_lack_of_memory_is_said_in_plain_words() -> None:
    with pytest.raises(TrainingError, match="ran out of memory"):
        run("exhaust")


@pytest.mark.parametrize(
    ("function", "words"),
    [("answer_wrongly", "must answer a dict, got list"), ("no_such_function", "no_such_function")],
)
def test_a_wrong_target_is_named(function: str, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        run(function)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "was killed .* memory runs out"),
        (signal.SIGSEGV, "crashed inside a native library .SIGSEGV."),
        (signal.SIGUSR1, "ended by a signal .SIGUSR1."),
    ],
)
def test_a_child_that_is_killed_says_so_and_shows_its_last_output(number: signal.Signals, words: str) -> None:
    with pytest.raises(TrainingError, match=words) as caught:
        run("kill_itself", {"signal": number})
    assert "last words" in caught.value.details["output"]


def test_a_child_that_leaves_without_a_result_is_an_error() -> None:
    with pytest.raises(TrainingError, match="exit code 3") as caught:
        run("leave")
    assert caught.value.details["output"] == "bye"


def test_a_file_in_the_working_folder_does_not_shadow_a_library(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    assert run("echo", {"label": "x"}, cwd=tmp_path) == {"label": "x"}


def test_a_fault_point_kills_the_trainer_once(tmp_path: Path) -> None:
    env = {"KEEPSIGHT_FAULT": "trainer:fit", "KEEPSIGHT_FAULT_ONCE": str(tmp_path / "once")}
    with pytest.raises(TrainingError, match="SIGKILL"):
        run("pass_fault", env=env)
    assert run("pass_fault", env=env) == {"passed": True}


def test_cancel_lets_the_child_clean_up_and_leaves_no_process(tmp_path: Path) -> None:
    pids: dict[str, int] = {}
    with pytest.raises(CancelledError):
        run("linger", {"cleaned": str(tmp_path / "cleaned")}, on_progress=pids.update, cancel=lambda: bool(pids))
    assert (tmp_path / "cleaned").exists()
    assert gone(pids["pid"]) and gone(pids["grandchild"])


def test_cancel_kills_a_child_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepsight.loop.child._GRACE_S", 0.5)
    pids: dict[str, int] = {}
    with pytest.raises(CancelledError):
        run("linger", {"stubborn": True}, on_progress=pids.update, cancel=lambda: bool(pids))
    assert gone(pids["pid"]) and gone(pids["grandchild"])


def test_a_time_limit_ends_the_child() -> None:
    pids: dict[str, int] = {}
    with pytest.raises(TrainingError, match=r"longer than 1\.5 s"):
        run("linger", on_progress=pids.update, timeout_s=1.5)
    assert all(gone(pid) for pid in pids.values())


def test_a_failing_progress_callback_leaves_no_child() -> None:
    pids: dict[str, int] = {}

    def fail(values: Mapping[str, Any]) -> None:
        pids.update(values)
        raise KeepsightError("The disk is full.", expected="space.", do="Free some.")

    with pytest.raises(KeepsightError, match="disk is full"):
        run("linger", on_progress=fail)
    assert gone(pids["pid"]) and gone(pids["grandchild"])


def test_a_killed_parent_leaves_no_child(parent: Callable[[str], Parent]) -> None:
    family = parent("linger")
    assert alive(family.pids["pid"])
    family.kill()
    assert gone(family.pids["pid"])


def test_a_killed_parent_leaves_no_child_that_holds_the_interpreter(parent: Callable[[str], Parent]) -> None:
    family = parent("hold_interpreter")
    assert alive(family.pids["pid"])
    family.kill()
    assert gone(family.pids["pid"])


def test_killing_the_child_from_outside_is_a_training_error() -> None:
    def kill(pids: Mapping[str, Any]) -> None:
        os.kill(pids["pid"], signal.SIGKILL)

    with pytest.raises(TrainingError, match="was killed"):
        run("linger", on_progress=kill)


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """Linux sends the parent-death signal when the starting *thread* ends, so that thread must be a lasting one."""
    script = (
        "import ctypes, pathlib, signal, sys, time;"
        "ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0);"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(300)"
    )
    children: list[subprocess.Popen[bytes]] = []

    def ask() -> None:
        children.append(_spawner.start([sys.executable, "-c", script, str(tmp_path / "armed")]))
        while not (tmp_path / "armed").exists():
            time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert not gone(children[0].pid, within_s=1)
    children[0].kill()
    children[0].wait()


def test_children_of_several_threads_run_beside_each_other() -> None:
    answers: dict[int, dict[str, Any]] = {}

    def ask(number: int) -> None:
        answers[number] = run("echo", {"label": str(number), "steps": 5})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: answer["label"] for number, answer in answers.items()} == {0: "0", 1: "1", 2: "2"}


def test_no_file_descriptor_is_left_open() -> None:
    run("echo", {"label": "warm"})
    before = set(Path("/proc/self/fd").iterdir())
    run("echo", {"label": "once"})
    with pytest.raises(TrainingError):
        run("leave")
    assert set(Path("/proc/self/fd").iterdir()) == before
