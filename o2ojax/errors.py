"""What a user got wrong, said in one sentence."""

import difflib
from collections.abc import Iterable

GO_ON = 75  # exit status (sysexits.h's EX_TEMPFAIL): the same command goes on
OTHER_FAILED = 69  # (EX_UNAVAILABLE): another process of a run, or a trial of a sweep


TOO_LONG, HEAD, TAIL = 1500, 1000, 400  # letters of a message


class UserError(ValueError):
    """Bad input. The message names the thing, what is wrong, what would be right.

    It is one line, and can be read, whatever the names and values in it are.
    """

    def __str__(self) -> str:
        """The message; of one that is too long, how it begins and how it ends."""
        shown = (x if x.isprintable() else repr(x)[1:-1] for x in super().__str__())
        told = "".join(shown)
        return told if len(told) <= TOO_LONG else f"{told[:HEAD]} ... {told[-TAIL:]}"


LONG = 300  # letters of another library's message that are shown
# What a user's own code may raise, except what Ctrl-C does: it may also exit.
RAISED = (Exception, SystemExit, GeneratorExit)


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind, where it says nothing."""
    try:
        line = next(iter(str(error).splitlines()), "")
    except Exception:  # a stranger's own class may do anything
        line = ""
    line = line or type(error).__name__
    return line if len(line) <= LONG else f"{line[:LONG]} ..."


FEW = 40  # names that a message lists whole


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the known ones: with those nearest to it,
    and with all of them where they are few.
    """
    known = sorted(known)
    name = str(name)
    near = difflib.get_close_matches(name, known, n=3)
    if len(name) > LONG:
        name = f"{name[:LONG]}..."
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    if len(known) <= FEW:
        hint += f" Known: {', '.join(known)}"
    elif not near:
        hint += f" It has {len(known)}, as {', '.join(known[:FEW])}"
    return UserError(f"unknown {kind} {name!r}{hint}")
