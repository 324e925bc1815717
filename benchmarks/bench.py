"""`make bench`: what everything costs, and of what is possible which share.

See `command` for the options. `python -m benchmarks.compare OLD NEW` holds two results
against each other.
"""

import sys

from benchmarks import (
    command,
    compiling,
    hosts,
    memory,
    seeing,
    starts,
    steps,
    stores,
    updates,
    whole,
)

SECTIONS = {
    "updates": updates.UPDATES,
    "planning": updates.PLANNING,
    "steps": steps.STEPS,
    "acting": steps.ACTING,
    "online": updates.ONLINE,
    "seeing": seeing.SEEING,
    "drawing": seeing.DRAWING,
    "seen play": seeing.PLAYING,
    "ring of frames": seeing.FRAMES,
    "host": hosts.STEPPING,
    "resume": hosts.RESUME,
    "latency": hosts.LATENCY,
    "replay": stores.SECTION,
    "compile": compiling.SECTION,
    "starts": starts.SECTION,
    "memory": memory.SECTION,
    "whole": whole.SECTION,
}

if __name__ == "__main__":
    sys.exit(command.main("bench", SECTIONS))
