"""What MkDocs does besides: a site out of a repository, with formulas and no network.

* A link that leaves docs/ is followed: the file becomes a page of the site, below
  `repository/`, so that the same link works here and where the repository is read.
* A block of the language `settings` becomes the table of a config's fields, which are
  read from the class in the file that it names.
* Formulas in LaTeX become MathML, which browsers draw by themselves.
"""

import ast
import html
import posixpath
import re
from pathlib import Path

from latex2mathml import converter
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
AWAY = "repository"  # where files from outside of docs/ are
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")
SETTINGS = re.compile(r"^```settings\n(\S+) (\w+)\n```$", re.MULTILINE)
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)
NAME = re.compile(r"<m[io]>(log|exp)</m[io]>")  # of functions, which stand apart
SPACE = '<mspace width="0.15em"/>'
SHOWN = {".py": "python", ".sh": "bash", ".lock": "text", "": "make"}

# What `fields` has for declaring one, and what it may be.
KINDS = {
    "positive": "above 0",
    "non_negative": "at least 0",
    "fraction": "from 0 to 1",
    "number": "",
    "count": "whole, at least 1",
    "whole": "whole, at least 0",
    "sizes": "whole numbers",
    "flag": "True or False",
    "choice": "",
    "text": "text",
}
TRACED = ("positive", "non_negative", "fraction", "number")
DEFAULTS = {"*networks.ACTIVATIONS": "relu", "*ACTIVATIONS": "gelu", "*HEADS": "relu"}
BOUNDS = {
    "above": "above",
    "at_least": "at least",
    "below": "below",
    "at_most": "at most",
}

_origins: dict[str, Path] = {}  # of pages, by where they are in the site


def on_files(files, config):
    """Adds the files that pages link to, and those that these link to."""
    _origins.clear()
    for file in files.documentation_pages():
        _origins[file.src_uri] = DOCS / file.src_uri
    for name in ("CONTRIBUTING.md", "CHANGELOG.md"):
        _add(ROOT / name, files, config)
    seen: set[str] = set()
    while todo := _origins.keys() - seen:
        for uri in sorted(todo):
            seen.add(uri)
            for target in _targets(_origins[uri]):
                if not target.is_relative_to(DOCS):
                    _add(target, files, config)
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links to where their files are in the site, and blocks into tables."""
    uri = page.file.src_uri
    origin = _origins[uri]
    if origin.suffix != ".md":
        return markdown

    def turned(found: re.Match) -> str:
        target = (origin.parent / found[1]).resolve()
        there = _uri(target)
        if files.get_file_from_path(there) is None:
            return found[0]  # strict builds fail for it
        return posixpath.relpath(there, posixpath.dirname(uri)) + (found[2] or "")

    linked = LINK.sub(turned, markdown)
    return SETTINGS.sub(lambda found: settings(*found.groups()), linked)


def on_page_content(html_text, page, config, files):
    """Draws formulas."""

    def draw(found: re.Match) -> str:
        latex = html.unescape(found[2]).strip()
        block = found[1] == "div"
        drawn = converter.convert(latex, display="block" if block else "inline")
        if "\\" in drawn:
            raise PluginError(f"{page.file.src_uri}: cannot draw {latex}")
        drawn = NAME.sub(f"{SPACE}\\g<0>{SPACE}", drawn)
        return f'<div class="formula">{drawn}</div>' if block else drawn

    return FORMULA.sub(draw, html_text)


def settings(file: str, name: str) -> str:
    """The fields of a config's class, as a table in Markdown."""
    text = (ROOT / file).read_text()
    tree = ast.parse(text)
    (found,) = (x for x in tree.body if isinstance(x, ast.ClassDef) and x.name == name)
    lines, above = text.splitlines(), found.body[0].end_lineno
    rows = ["| field | default | may be | varies | |", "|---|---|---|---|---|"]
    for field in found.body:
        if isinstance(field, ast.AnnAssign):
            said = lines[above : field.lineno - 1], lines[field.end_lineno - 1]
            default, *cells = _declared(field.value)
            cells = [f"`{field.target.id}`", f"`{default}`", *cells, _comment(*said)]
            rows.append("| " + " | ".join(cells) + " |")
            above = field.end_lineno
    return "\n".join(rows)


def _comment(above: list[str], line: str) -> str:
    """What comments say of a field. One or two words above others are a heading."""
    own = line.partition("# ")[2].strip()
    said = [x.partition("# ")[2].strip() for x in above if "# " in x]
    if said and len(said[0].split()) < 3 and (own or said[1:]):
        del said[0]
    return "; ".join(filter(None, [" ".join(said), own]))


def _declared(call: ast.Call) -> tuple[str, str, str]:
    """A field's default, what else it may be, and whether it varies in a population."""
    kind = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id
    given = [ast.unparse(x) for x in call.args]
    options = {x.arg: x.value for x in call.keywords}
    if kind == "sizes":
        given = [str(x)[1:-1].rstrip(",") for x in [eval(f"({', '.join(given)},)")]]
    if kind == "choice" and given[0].startswith("*"):
        return DEFAULTS.get(given[0], given[0]), "a name", ""
    if kind == "choice":
        given = [ast.literal_eval(x) for x in given]
        return given[0], ", ".join(f"`{x}`" for x in given), ""
    words = [KINDS[kind]] if KINDS[kind] else []
    for option, bound in BOUNDS.items():
        if option in options:
            words.append(f"{bound} {ast.unparse(options[option])}")
    traced = kind in TRACED and "traced" not in options
    return given[0], ", ".join(words), "yes" if traced else ""


def _targets(origin: Path) -> list[Path]:
    """Files in the repository that a page links to."""
    if origin.suffix != ".md":
        return []
    found = (x[1] for x in LINK.finditer(origin.read_text()))
    there = ((origin.parent / x).resolve() for x in found)
    return [x for x in there if x.is_file() and x.is_relative_to(ROOT)]


def _uri(target: Path) -> str:
    """Where a file is in the site."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    if not target.is_relative_to(ROOT):
        return ""
    uri = f"{AWAY}/{target.relative_to(ROOT).as_posix()}"
    return f"{uri}.md" if target.suffix in SHOWN else uri


def _add(target: Path, files, config) -> None:
    uri = _uri(target)
    if files.get_file_from_path(uri):
        return
    if target.suffix in SHOWN:
        name = target.relative_to(ROOT)
        head = "---\nsearch:\n  exclude: true\nhide: [toc]\n---\n"
        code = f"```{SHOWN[target.suffix]}\n{target.read_text()}\n```\n"
        content = f"{head}# `{name}`\n\n{code}"
        made = File.generated(config, uri, content=content)
    else:
        made = File.generated(config, uri, abs_src_path=str(target))
    files.append(made)
    if made.is_documentation_page():
        _origins[uri] = target
