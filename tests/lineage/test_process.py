import sys
import time

import pytest

from fuseline.errors import LineageError
from fuseline.lineage.process import python_env, run, stream

CHILD = "import subprocess, sys, time; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); time.sleep(60)"


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_lines_are_told_as_they_come(tmp_path):
    told: list[str] = []
    stream([sys.executable, "-c", "print('a'); print('b')"], tmp_path, {}, told.append)
    assert told == ["a", "b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_interrupts_a_stream_its_whole_group_is_gone(tmp_path, error):
    children: list[int] = []

    def on_line(line: str) -> None:
        children.append(int(line))
        raise error

    with pytest.raises(error):
        stream([sys.executable, "-c", CHILD], tmp_path, {}, on_line)
    time.sleep(0.2)
    assert children
    assert not alive(children[0])


def test_a_failed_command_speaks_in_its_own_words(tmp_path):
    program = "import sys; print('noise'); sys.exit('error: split val has no rows\\n  add some')"
    with pytest.raises(LineageError, match="^split val has no rows\n  add some$"):
        stream([sys.executable, "-c", program], tmp_path, {}, lambda line: None)


def test_a_failed_command_without_words_shows_the_end_of_its_output(tmp_path):
    with pytest.raises(LineageError, match="ZeroDivisionError"):
        stream([sys.executable, "-c", "1/0"], tmp_path, {}, lambda line: None)


def test_run_returns_stdout_and_names_what_failed(tmp_path):
    assert run(["echo", "a b"], tmp_path) == "a b\n"
    with pytest.raises(LineageError, match="`false` failed in"):
        run(["false"], tmp_path)


def test_a_clone_leaves_what_tensorboard_draws_where_it_outlives_the_clone(tmp_path, monkeypatch):
    clone, variable = tmp_path / ".fuseline" / "work" / "run-1", "TENSORBOARD_LOGGING_DIR"
    monkeypatch.chdir(tmp_path)
    for given, expected in (("", ".fuseline/tensorboard"), ("logs", "logs")):
        monkeypatch.setenv(variable, given)
        assert python_env(clone)[variable] == str(tmp_path / expected)
    monkeypatch.setenv(variable, "/elsewhere")
    assert python_env(clone)[variable] == "/elsewhere"


def test_a_clone_shares_the_cache_of_the_repository_it_serves(tmp_path, monkeypatch):
    monkeypatch.delenv("FUSELINE_CACHE")
    own = str(tmp_path / ".fuseline" / "cache")
    assert python_env(tmp_path)["FUSELINE_CACHE"] == own
    assert python_env(tmp_path / ".fuseline" / "work" / "run-1")["FUSELINE_CACHE"] == own


def test_a_cache_that_the_user_names_is_used_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSELINE_CACHE", "/somewhere")
    assert python_env(tmp_path)["FUSELINE_CACHE"] == "/somewhere"


def test_a_command_that_found_the_disk_full_says_so_and_nothing_of_support(tmp_path):
    said = "ERROR: unexpected error - [Errno 28] No space left on device\\n\\nHaving any troubles? Hit us up"
    with pytest.raises(LineageError, match=r"left on device \(no disk space left; free some and run again\)$"):
        run([sys.executable, "-c", f"import sys; sys.exit('{said}')"], tmp_path)
