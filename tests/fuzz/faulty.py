"""A fuzzer of nothing, whose cases end in every way there is: it tries the harness."""

import os
import sys
import time
import traceback

from o2ojax.errors import UserError
from tests.fuzz.harness import Unnoticed

# what is done -> how it must be judged
ENDS = {
    "nothing": "accepted",
    "warns": "warned",
    "refuses": "refused",
    "tells nothing": "traceback",
    "raises": "traceback",
    "exits": "traceback",
    "prints a traceback": "traceback",
    "says nothing": "unnoticed",
    "aborts": "crash",
    "sleeps": "hang",
}


class Fuzzer:
    def __init__(self, folder):
        del folder

    def draw(self, chance):
        ends = list(ENDS)
        return "", [(chance.choice(ends[:3]),) for _ in range(3)] + [("raises",)]

    def run(self, case):
        done = [change[0] for change in case[1]]
        if "refuses" in done:
            raise UserError("it is refused")
        if "tells nothing" in done:
            raise UserError("")
        if "raises" in done:
            raise KeyError("x")
        if "exits" in done:
            sys.exit(3)
        if "prints a traceback" in done:
            try:
                raise RuntimeError
            except RuntimeError:
                traceback.print_exc()
        if "says nothing" in done:
            raise Unnoticed("other numbers")
        if "aborts" in done:
            os.abort()
        if "sleeps" in done:
            time.sleep(100)
        return "warns" not in done
