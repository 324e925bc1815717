"""What holds in every test: no silent broadcast, no chatter, compiled programs kept."""

import gc
import os
import re
from pathlib import Path

import jax
import mujoco
import pytest
from xdist.scheduler import LoadScopeScheduling

CACHE = Path(__file__).parents[1] / ".cache" / "jax"
# Files that ask the same of every agent.
OF_ALL_AGENTS = ("test_suite.py", "test_probes.py", "test_forms.py")
COMPILE_FAST = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_llvm_disable_expensive_passes=true",
)


def scope_of(nodeid: str) -> str:
    """What a test shares costly fixtures with: a file, or an agent's part of it."""
    file, _, test = nodeid.partition("::")
    asks_all = file.endswith(OF_ALL_AGENTS)
    agent = re.search(r"\[\w+", test) if asks_all else None
    return file + agent[0] if agent else file


class TogetherByFile(LoadScopeScheduling):
    """What shares costly fixtures stays in one process."""

    def _split_scope(self, nodeid):
        return scope_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return TogetherByFile(config, log) if config.getoption("dist") == "load" else None


def pytest_configure(config):
    # two processes share an accelerator: neither may take most of its memory at once
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # programs that run for a moment: to compile them takes most of all tests' time
    os.environ.setdefault("XLA_FLAGS", " ".join(COMPILE_FAST))
    config.addinivalue_line("markers", "slow: left to `make test-all`")
    # [B] minus [B, 1] is an error, rather than a [B, B] matrix
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    mujoco.set_mju_user_warning(lambda message: None)  # else a log file, and stderr
    # thousands of programs are kept: to look for garbage among them took a tenth of all
    gc.set_threshold(20_000, 10, 10)


ENOUGH = 2 * 2**30  # bytes of programs, beyond which they are dropped
_held = 0


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Drops compiled programs, which JAX keeps for ever, before they fill memory."""
    global _held
    if nextitem is not None and scope_of(nextitem.nodeid) == scope_of(item.nodeid):
        return
    if _resident() > _held + ENOUGH:
        jax.clear_caches()
        gc.collect()
        _held = _resident()


def _resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
