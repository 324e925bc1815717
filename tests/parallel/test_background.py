"""Work in a thread of its own: what comes back, and what is no longer waited for."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from o2ojax.parallel import background

ROOT = Path(__file__).parents[2]


def test_what_a_function_returns_or_raises_comes_back():
    aside = background.Aside()
    assert aside.call(lambda: 3, lambda: False) == 3
    with pytest.raises(TimeoutError, match="its own"):
        aside.call(lambda: (_ for _ in ()).throw(TimeoutError("its own")), lambda: True)
    names = {aside.call(lambda: threading.current_thread().name, bool) for _ in "ab"}
    assert len(names) == 1 and threading.current_thread().name not in names
    aside.close()


def test_work_that_is_given_up_goes_on_in_vain(monkeypatch):
    monkeypatch.setattr(background, "PATIENCE", 0.1)
    released, aside = threading.Event(), background.Aside()
    with pytest.raises(background.GivenUp):
        aside.call(released.wait, lambda: True)
    assert background.is_busy()
    released.set()
    assert aside.call(lambda: 3, lambda: False) == 3  # after what came before it
    assert not background.is_busy()


def test_another_thread_calls_its_functions_itself():
    found = []
    aside = background.Aside()
    thread = threading.Thread(
        target=lambda: found.append(aside.call(threading.current_thread, lambda: True))
    )
    thread.start()
    thread.join()
    assert found == [thread]


def test_a_command_ends_without_waiting_for_what_works_in_vain():
    code = """
import threading
from concurrent.futures import ThreadPoolExecutor
from experiments import leave
from o2ojax.parallel import background
background.note(ThreadPoolExecutor(1).submit(threading.Event().wait))
print("said")
leave(lambda: 75)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (75, b"said\n"), done.stderr
