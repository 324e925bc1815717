"""What holds in every test: no silent broadcast, no chatter, compiled programs kept."""

import os
from pathlib import Path

import jax
import mujoco
import pytest

CACHE = Path(__file__).parents[1] / ".cache" / "jax"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What shares costly fixtures stays in one process: a file, or an agent's part."""
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        name = f"{item.path.name} {params.get('job', '')}".strip()
        item.add_marker(pytest.mark.xdist_group(name))


def pytest_configure(config):
    # two processes share an accelerator: neither may take most of its memory at once
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # programs that run for a moment: to optimise them takes most of all tests' time
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    config.addinivalue_line("markers", "slow: left to `make test-all`")
    # [B] minus [B, 1] is an error, rather than a [B, B] matrix
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    mujoco.set_mju_user_warning(lambda message: None)  # else a log file, and stderr
