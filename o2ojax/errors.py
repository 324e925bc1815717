"""What a user got wrong, said in one sentence."""

import difflib
from collections.abc import Iterable

GO_ON = 75  # exit status (sysexits.h's EX_TEMPFAIL): the same command goes on


class UserError(ValueError):
    """Bad input. The message names the thing, what is wrong, what would be right."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind, where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the known ones, with the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return UserError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known)}")
