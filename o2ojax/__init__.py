"""Offline-to-online reinforcement learning: pure functions, compiled, over many seeds.

    import o2ojax

    run = o2ojax.train("iql", env="hopper", dataset="hopper-medium-replay")
    policy = run.policy()

Read `types` for the nouns, `losses` for the equations, `agents` for the algorithms and
`loop` for what happens in between.
"""

from typing import Any

import jax

__version__ = "0.1.0"
__all__ = ["RunPolicy", "Trained", "UserError", "load", "train"]

# On a CPU with few threads, two programs in flight at once can wait for each other for
# ever (seen with jax 0.10.2). Ours run one after another, so nothing is lost.
jax.config.update("jax_cpu_enable_async_dispatch", False)


def __getattr__(name: str) -> Any:
    """The names above, which take seconds to import, when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'o2ojax' has no attribute {name!r}")
    from o2ojax import api

    return getattr(api, name)
