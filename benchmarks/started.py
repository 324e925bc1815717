"""A run by the public command, watched: `python started.py ARG ...`.

Its last line is JSON: seconds from the command to the first update and of the whole,
of these the seconds in compiled calls, and those of evaluations.
"""

import json
import os
import sys
import time
from pathlib import Path


def age() -> float:
    """Seconds since this process began, as the system counts them."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    booted = time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted - ticks / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str]) -> int:
    """Runs; exit status of the run."""
    import jax

    from experiments import execution  # noqa: F401  (as the command does)
    from o2ojax.parallel import compiled
    from o2ojax.run import training

    told = {"first update": 0.0, "compiled calls": 0.0, "evaluations": 0.0}

    def timed(name, call):
        def watched(*given):
            started = time.perf_counter()
            if "phase" in name or "round" in name:
                told["first update"] = told["first update"] or age()
            result = jax.block_until_ready(call(*given))
            seconds = time.perf_counter() - started
            told["compiled calls"] += seconds
            told["evaluations"] += seconds * ("evaluation" in name)
            return result

        return watched

    compile_of, made = training.Session.compile, {}

    def compile_watched(self, name, *given):
        key = name, given[2:]
        if key not in made:
            made[key] = timed(name, compile_of(self, name, *given))
        return made[key]

    class Timed:
        """A jitted function, whose first call also compiles it: that does not count."""

        def __init__(self, name, call):
            self.name, self.call, self.ready = name, call, {}

        def __call__(self, *given):
            shapes = str(jax.tree.map(jax.numpy.shape, given))
            if shapes not in self.ready:
                self.ready[shapes] = self.call.lower(*given).compile()
            return timed(self.name, self.ready[shapes])(*given)

        def __getattr__(self, name):
            return getattr(self.call, name)

    over_members = compiled.over_members

    def members_watched(one, *given, **options):
        call = over_members(one, *given, **options)
        return call if options.get("sized") else Timed(one.__name__, call)

    training.Session.compile = compile_watched
    compiled.over_members = members_watched
    from experiments import run

    status = run.main(arguments)
    print(json.dumps(told | {"whole": age()}))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
