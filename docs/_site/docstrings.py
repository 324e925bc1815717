"""Docstrings as this package writes them, for mkdocstrings.

A line `name: what it is`, and those indented below it, is an item of a list; what ends
without a full stop is a formula, and stays as it is; papers are linked.
"""

import re

from griffe import Extension

ITEM = re.compile(r"^([\w\"]+(?:, [\w\"]+)*):\s+(?=\S)")
SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$", re.MULTILINE)
PAPER = re.compile(r"\barxiv\.org/abs/[\d.]*\d")


class Fields(Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj, **given):
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """A docstring's text with lists, formulas and links."""
    done: list[str] = []
    text = SECTION.sub(r"\n\g<0>", text)  # a section wants an empty line before it
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = paragraph.splitlines()
        if SECTION.match(paragraph) or lines[0].startswith((" ", "- ", "* ")):
            done.append(paragraph)
        elif ITEM.match(lines[0]) and not lines[0].endswith(":"):
            done.append(listed(lines))
        elif is_formula(paragraph) and done:
            done.append("```text\n" + paragraph + "\n```")
        else:
            done.append(paragraph)
    return PAPER.sub(lambda x: f"[{x[0]}](https://{x[0]})", "\n\n".join(done))


def is_formula(paragraph: str) -> bool:
    """Whether it has no full stop at its end, and is not a paper."""
    ended = paragraph.rstrip().endswith((".", ":", "?", ";"))
    return not ended and "arxiv.org" not in paragraph


def listed(lines: list[str]) -> str:
    """Lines `name: what it is` as a list."""
    items: list[str] = []
    for line in lines:
        found = ITEM.match(line)
        if found:
            names = ", ".join(f"`{x}`" for x in found[1].split(", "))
            items.append(f"- {names}: {' '.join(line[found.end() :].split())}")
        elif items:
            items[-1] += " " + " ".join(line.split())
        else:
            items.append(line)
    return "\n".join(items)
