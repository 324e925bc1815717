"""Offline-to-online reinforcement learning: pure functions, compiled, over many seeds.

Read `types` for the nouns, `losses` for the equations, `agents` for the algorithms and
`loop` for what happens in between.
"""

import jax

# On a CPU with few threads, two programs in flight at once can wait for each other for
# ever (seen with jax 0.10.2). Ours run one after another, so nothing is lost.
jax.config.update("jax_cpu_enable_async_dispatch", False)
