"""What README and docs show is run: each command, small or dry, and each example."""

import ast
import importlib
import json
import os
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from experiments import collect, execution, playing, study
from experiments import run as command
from o2ojax import api
from o2ojax.agents import AGENTS
from o2ojax.parallel import processes

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?"
    r'^```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\(([^)\s#:]*)(?:#([^)\s]*))?\)")
FIELDS = {
    "batch": 8,
    "agent.widths": (8, 8),
    "offline.updates": 20,
    "online.steps": 20,
    "log.every": 10,
    "eval.every": 10,
    "eval.episodes": 2,
    "checkpoint.every": 10,
}
SMALL = [
    f"--config.{name}={','.join(map(str, np.atleast_1d(value)))}"
    for name, value in FIELDS.items()
]


class Block(NamedTuple):
    """A block of code of a page.

    why: the reason for which it is not run; "" if it is.
    """

    page: Path
    language: str
    title: str
    text: str
    why: str


def blocks_of(page):
    return [
        Block(page, x["language"], x["title"] or "", x["text"], x["why"] or "")
        for x in BLOCK.finditer(page.read_text())
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands_of(block):
    text = block.text.replace("\\\n", " ")
    found = (shlex.split(line, comments=True) for line in text.splitlines())
    return [words for words in found if words]


COMMANDS = [
    (block.page, words)
    for block in BLOCKS
    if block.language == "bash" and not block.why
    for words in commands_of(block)
]


def named(command_of):
    page, words = command_of
    return f"{page.relative_to(ROOT)}: {' '.join(words)[:60]}"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Where a reader stands: files of the repository, and those that pages write."""
    path, before = tmp_path_factory.mktemp("reader"), Path.cwd()
    for name in ("examples", "experiments", "benchmarks"):
        (path / name).symlink_to(ROOT / name)
    for block in BLOCKS:
        if block.title:
            (path / block.title).write_text(block.text)
    os.chdir(path)
    yield path
    os.chdir(before)


@pytest.fixture(scope="module")
def examples_of(folder):
    """(page) -> runs all Python blocks of it, once, one after another."""
    done = set()

    def run(page):
        if page in done:
            return
        done.add(page)
        names = {"__name__": "example"}
        with pytest.MonkeyPatch.context() as patch:
            train = api.train
            patch.setattr(api, "train", lambda *a, **k: train(*a, **(k | FIELDS)))
            for block in blocks_of(page):
                if block.language == "python" and not block.why:
                    exec(compile(block.text, str(page), "exec"), names)

    return run


@pytest.fixture(scope="module")
def trained(folder, examples_of):
    """The run of the README's example, under the names of other runs as well."""
    examples_of(README)
    made = folder / "runs" / "hopper"
    for name in ("my-run", "short", "my-iql", "a-iql", "a-awac", "monday", "tuesday"):
        shutil.copytree(made, folder / "runs" / name)
    path = folder / "runs" / "tuesday" / "config.json"  # of other seeds
    config = json.loads(path.read_text())
    config["seeds"] = [seed + 100 for seed in config["seeds"]]
    path.write_text(json.dumps(config))
    return made


def test_the_front_door_is_small():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text) <= 9_000


def test_every_block_is_of_a_kind_that_is_run():
    for block in BLOCKS:
        known = ("bash", "python", "settings")
        assert block.language in known, (block.page, block.text)
        lines = [x for x in block.page.read_text().splitlines() if x.startswith("```")]
        assert len(lines) % 2 == 0, block.page


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(x.language == "python" for x in blocks_of(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_examples_run(page, examples_of, request):
    if page.name == "files.md":  # it reads a run
        request.getfixturevalue("trained")
    examples_of(page)


@pytest.mark.parametrize("command_of", COMMANDS, ids=map(named, COMMANDS))
def test_commands_are_what_they_seem(command_of, request, monkeypatch):
    page, (name, *rest) = command_of
    if name == "python" and rest[0] == "-m":
        package, _, module = rest[1].partition(".")
        if package == "experiments":
            name, rest = "o2ojax", [module, *rest[2:]]
    if name == "o2ojax":
        check = ASKED.get(rest[0], asked_nothing)
        check(rest[1:], request, monkeypatch)
    else:
        OTHERS[name](rest, monkeypatch)


def asked_run(arguments, request, monkeypatch):
    """A run is read and resolved; one of a file that a page shows is run, small."""
    asked = []

    def execute(config, workdir, extend=False):
        asked.append(workdir)
        return 0

    if not any("my_algorithm.py" in x for x in arguments):
        monkeypatch.setattr(execution, "execute", execute)
    else:
        arguments = [*arguments, *SMALL, "--config.seeds=1"]
        asked.append("for real")
    monkeypatch.setattr(execution, "divide_cpu", lambda num: None)
    monkeypatch.setattr(processes, "join", lambda *given: None)
    assert command.main(arguments) == 0
    assert len(asked) == 1


def asked_collect(arguments, request, monkeypatch):
    """What is to be made is told apart from what cannot be, and nothing is made."""
    asked = []

    def stop(*given, **more):
        asked.append(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(collect, "learn", stop)
    monkeypatch.setattr(collect, "make", stop)
    monkeypatch.setattr(playing, "play", stop)
    with pytest.raises(KeyboardInterrupt):
        collect.main(arguments)
    assert len(asked) == 1


def asked_study(arguments, request, monkeypatch):
    """Every run of it has a config, and its arguments are those of runs."""
    asked = []
    monkeypatch.setattr(study, "run", lambda *given: asked.append(given) or 0)
    status = study.main(arguments)
    if "--report" in arguments:
        assert (status, asked) == (2, [])  # none has ended here
    else:
        assert asked


def asked_finished(name):
    """A command that reads finished runs, or files, is run as it is."""

    def check(arguments, request, monkeypatch):
        request.getfixturevalue("trained")
        if name == "inspect":
            request.getfixturevalue("examples_of")(ROOT / "docs" / "data.md")
        module = importlib.import_module(f"experiments.{name}")
        assert module.main(arguments) == 0

    return check


def asked_sweep(arguments, request, monkeypatch):
    """Trials are planned and their data read; one by its number is only begun."""
    from experiments import sweep

    asked = []
    monkeypatch.setattr(sweep, "run", lambda *given: asked.append("all") or {})
    monkeypatch.setattr(sweep, "conclude", lambda *given: asked.append("report"))
    monkeypatch.setattr(execution, "execute", lambda *given: asked.append("one") or 0)
    assert sweep.main(arguments) == 0
    expected = {"--dry-run": [], "--report": ["report"]}
    kind = next((x for x in arguments if x in expected), None)
    if any(x.startswith("--trial") for x in arguments):
        assert asked == ["one"]
    else:
        assert asked == expected.get(kind, ["all", "report"])


def asked_nothing(arguments, request, monkeypatch):
    raise AssertionError(f"no test knows this command: {arguments}")


ASKED = {
    "run": asked_run,
    "collect": asked_collect,
    "study": asked_study,
    "sweep": asked_sweep,
    "report": asked_finished("report"),
    "export": asked_finished("export"),
    "inspect": asked_finished("inspect"),
}


def make(rest, monkeypatch):
    (target, *variables) = rest
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for variable in variables:
        assert f"$({variable.partition('=')[0]})" in makefile


def activate(rest, monkeypatch):
    folder = rest[0].removesuffix("/bin/activate")
    assert f"VENV := {folder}\n" in (ROOT / "Makefile").read_text()


def pip(rest, monkeypatch):
    assert rest[0] == "install"
    extra = re.fullmatch(r"o2ojax\[([\w-]+)\]", rest[1])[1]
    assert f'"{extra}": [' in (ROOT / "setup.py").read_text()


def python(rest, monkeypatch):
    """Of a benchmark, what it is asked; a script is one that a test of its own runs."""
    if rest[0] != "-m":
        script = Path(rest[0]).name
        tests = (ROOT / "tests" / "experiments").glob("test_*.py")
        assert any(script in x.read_text() for x in tests)
        return
    module, arguments = rest[1], rest[2:]
    if "--markdown" not in arguments:
        from benchmarks import command as benchmark

        for name in ("keep", "measure"):
            monkeypatch.setattr(benchmark, name, lambda *given: {})
        monkeypatch.setattr(benchmark, "write_json", lambda *given: None)
        monkeypatch.setattr(jax.config, "update", lambda *given: None)
        arguments = [*arguments, "--help"]
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(module, run_name="__main__")
    assert stopped.value.code in (0, None)


def cp(rest, monkeypatch):
    source, target = rest
    shutil.copy(ROOT / source, target)


OTHERS = {".": activate, "cp": cp, "make": make, "pip": pip, "python": python}


# Links, and the pages of algorithms


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for path, anchor in LINK.findall(BLOCK.sub("", page.read_text())):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            heads = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in map(slug, heads), (path, anchor)


ESTIMATE = r"-?\d+\.\d+ \[-?[\d.]+, -?[\d.]+\]"  # as 28.1 [26.0, 30.1]


def words_of(path):
    return " ".join(path.read_text().replace("**", "").split())


def test_scores_are_those_of_the_results():
    """Timings are others: their figures are in JSON."""
    docs = ROOT / "docs"
    pages = [docs / "online.md", *sorted((docs / "algorithms").glob("*.md"))]
    results = (ROOT / "benchmarks" / "results").rglob("*.md")
    known = " ".join(map(words_of, sorted(results)))
    stale = [
        (page.name, found)
        for page in pages
        for found in re.findall(ESTIMATE, words_of(page))
        if found not in known
    ]
    assert not stale


def slug(heading):
    """As MkDocs and forges make it of a heading."""
    kept = re.sub(r"[^\w\s-]", "", heading).strip().lower()
    return re.sub(r"[\s-]+", "-", kept)


@pytest.mark.parametrize("name", list(AGENTS))
def test_every_algorithm_has_a_page_and_a_row(name):
    page = ROOT / "docs" / "algorithms" / f"{name}.md"
    assert f"](docs/algorithms/{name}.md)" in README.read_text()
    assert f"]({name}.md)" in (page.parent / "index.md").read_text()
    assert f"algorithms/{name}.md" in (ROOT / "mkdocs.yml").read_text()
    kind = AGENTS.find(name).config
    file = kind.__module__.replace(".", "/") + ".py"
    shown = [x.text.split() for x in blocks_of(page) if x.language == "settings"]
    assert [file, kind.__name__] in shown


def test_tables_of_settings_are_of_classes_that_are_there():
    for block in BLOCKS:
        if block.language == "settings":
            file, name = block.text.split()
            tree = ast.parse((ROOT / file).read_text())
            assert name in [x.name for x in tree.body if isinstance(x, ast.ClassDef)]
