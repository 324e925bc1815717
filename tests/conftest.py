"""What holds in every test: no silent broadcast, no chatter, compiled programs kept."""

from pathlib import Path

import jax
import mujoco
import pytest

CACHE = Path(__file__).parents[1] / ".cache" / "jax"


def pytest_configure(config):
    config.addinivalue_line("markers", "loose: arrays of different rank may be mixed")
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    mujoco.set_mju_user_warning(lambda message: None)  # else a log file, and stderr


@pytest.fixture(autouse=True)
def no_silent_broadcast(request):
    """Makes [B] minus [B, 1] an error, rather than a [B, B] matrix."""
    mode = "allow" if "loose" in request.keywords else "raise"
    with jax.numpy_rank_promotion(mode):
        yield
