"""A run that is asked to stop, by signals to a process of its own."""

import signal
import subprocess
import sys

import pytest

# Compiled code that waits for an answer: of an environment's step, or a device's.
STUCK = """
import time
import jax
from o2ojax.run.stopping import stop_on_signal

def never(x):
    print("stuck", flush=True)
    while True:
        time.sleep(60)

jax.config.update("jax_cpu_enable_async_dispatch", %s)
with stop_on_signal():
    jax.block_until_ready(jax.jit(lambda x: jax.pure_callback(never, x, x))(1.0))
"""
LOOPS = """
import time
from o2ojax.run.stopping import stop_on_signal

with stop_on_signal() as asked:
    print("stuck", flush=True)
    while not asked():
        time.sleep(0.01)
"""


def started(code):
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "stuck\n"
    return process


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("dispatched", [False, True])  # often to another thread
def test_a_second_interrupt_ends_what_never_answers(dispatched, first):
    process = started(STUCK % dispatched)
    process.send_signal(first)
    assert process.stderr.readline().startswith("stops and saves as soon as it can")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) in (-signal.SIGINT, 128 + signal.SIGINT)
    told = process.stderr.read()
    assert "stopped at once" in told or "KeyboardInterrupt" in told


def test_a_launcher_may_ask_twice():
    process = started(LOOPS)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
