"""The public command on four CPU devices, watched: `four_devices.py FACTS ARG ...`.

Arguments after a `--` are those of a further run. What was seen of the last one is
written to FACTS, as JSON.
"""

import json
import sys
from pathlib import Path

import jax

from experiments import run as command
from o2ojax.envs import physics
from o2ojax.run import training

FACTS = {"rows": set(), "shardings": set(), "donated": set()}
host_step, Session = physics.host_step, training.Session


def watched_step(*args):
    step = host_step(*args)

    def watched(rows, variants):
        FACTS["rows"].add(len(rows))
        return step(rows, variants)

    return watched


class Watched(Session):
    def chunk(self, run, size, bar):
        before = jax.tree.leaves(run)
        run = super().chunk(run, size, bar)
        FACTS["donated"] |= {leaf.is_deleted() for leaf in before if leaf.size}
        for leaf in (leaf for leaf in jax.tree.leaves(run) if leaf.size):
            on = [shard.data.shape[0] for shard in leaf.addressable_shards]
            FACTS["shardings"].add((str(leaf.sharding.spec), *on))
        return run


def main(facts, *arguments):
    physics.host_step, training.Session = watched_step, Watched
    assert jax.device_count() == 4
    arguments = list(arguments)
    while arguments:
        cut = arguments.index("--") if "--" in arguments else len(arguments)
        one, arguments = arguments[:cut], arguments[cut + 1 :]
        if command.main(one) != 0:
            return 1
    told = {name: sorted(seen) for name, seen in FACTS.items()}
    Path(facts).write_text(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
