"""Configs of ours, changed by values of odd types, by overrides, files and doors.

Each must be resolved, or refused in one sentence. Some of those that are resolved are
traced, in full, as a run would: what is accepted must work. A sweep over odd values
must be planned, or refused, and all its trials must have directories that can be made.
"""

import contextlib
import io
import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from experiments import sweep
from o2ojax.errors import UserError
from o2ojax.run import population, resolve, workdir
from o2ojax.run.config import ConfigDict, RunConfig
from o2ojax.run.job import prepare
from tests.fuzz.harness import ROOT, Case

NAMES = "awac bc bcq cql fql ifql iql o2ac off2on rebrac td3_bc rlpd wsrl fowm"
CONFIGS = [
    *(f"{name}.py:hopper-random" for name in NAMES.split()),
    "fowm.py:push-medium-replay",
    "pearl.py:point-robot",
    "sac.py:halfcheetah",
    "smac.py:point-robot-pearl",
    "iql.py:lift-medium-replay",
]
WORDS = (
    "0 1 2 3 5 7 10 16 64 100 256 1000 5000 -1 -5 0.5 0.1 0.25 3.2 1e-3 1e-60 1e60 1e-8"
    " 0.99999999999 2147483647 2147483648 4294967295 4294967296 99999999999999999999"
    " 1e400 inf -inf nan True False true None (1,) (16,16) 16,16 (0,) () [] [8] {}"
    " {'a':1} 'x' x iql uniform online balanced symmetric tasks symmetric_windows auto"
    " mujoco mjx hopper return_range 0.7,0.9 0.7,0.7 1,inf (1,'a') 1j 0x10 1_000 1e3"
    " relu softplus decoder lambda:0 (((((( \x00 é a:b nowhere.py:X os:path minari:a/b"
    " 10**12 1000000000000 9" + "9" * 400 + " 1e999 100,1e999 0.7,nan 0.7,0.70000000001"
    " ~nobody/x.npz " + "n" * 300 + ".npz minari:x minari: gymnasium: gymnasium:X-v9"
    " /dev/zero.npz /dev/null x[/y] $_$ ../../../x 日本.npz \ud800 -0 --x =y a=b [[[[[["
    " {} {0} %s %d __import__('os') os.path:join sys:exit json:loads math:pi none NONE"
    " 0,0 -2,2 2,-2 data env unit require never 1e-320 1e308 0.1,0.2,0.3 *" + " (" * 3
).split(" ")
VALUES = [
    *(0, 1, 2, 10, 256, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-60, 1e60, math.inf),
    *(math.nan, True, False, None, "", "x", "0.5", "3", (), (1,), (16, 16), [8, 8]),
    *(
        {},
        {"a": 1},
        {1: 2},
        np.float32(0.5),
        np.int64(3),
        np.array(2),
        np.array([1, 2]),
    ),
    *(np.bool_(True), np.array("x"), np.datetime64("2020"), Fraction(1, 2), 1 + 2j),
    *(
        b"x",
        bytearray(b"y"),
        object(),
        print,
        range(3),
        range(10**9),
        {1, 2},
        Path("a"),
    ),
    *(10**400, (10**30, 10**30), "é\x00", "9" * 5000, [[[]]], (None,), ("a", "b")),
    *(ConfigDict({"a": 1}), np.zeros((2, 2)), np.float64(np.nan), 10**12, 10**9),
]
# What a config's file may do, in place of returning ours.
FILES = (
    "",
    "get_config = 3",
    "def get_config(task): pass",
    "def get_config(): return {}",
    "def get_config(task): return {'algorithm': 'iql'}",
    "def get_config(task): return {'algorithm': 'iql', 'env': 'hopper'}",
    "def get_config(task): return {task: task}",
    "def get_config(task): return {1: 2, None: 3}",
    "def get_config(task): return [('a', 1)]",
    "def get_config(task): raise KeyError",
    "def get_config(task): raise SystemExit(3)",
    "def get_config(task): raise ValueError('a\\nb')",
    "def get_config(task): return get_config(task)",
    "def get_config(a, b): return {}",
    "async def get_config(task): return {}",
    "def get_config(task): yield {}",
    "import nowhere_at_all",
    "import sys; sys.exit(4)",
    "def get_config(task",
    "\x00",
    "class get_config(dict): pass",
    "from ml_collections import ConfigDict\n"
    "def get_config(task):\n"
    "    c = ConfigDict(); c.algorithm = 'iql'; c.env = c.get_ref('dataset'); return c",
    "from ml_collections import ConfigDict, FieldReference\n"
    "def get_config(task):\n"
    "    c = ConfigDict({'algorithm': FieldReference(None, field_type=str)}); return c",
    "from o2ojax.run.config import defaults\n"
    "def get_config(task):\n"
    "    c = defaults('iql', 'hopper'); c.lock(); return c",
    "from o2ojax.run.config import defaults\n"
    "def get_config(task):\n"
    "    c = defaults('iql', 'hopper'); del c.agent; c.replay = None; return c",
    "from o2ojax.run.config import defaults\n"
    "def get_config(task):\n"
    "    c = defaults('iql', task); c.agent = c; return c",
    "from o2ojax.run.config import defaults\n"
    "def get_config(task):\n"
    "    c = defaults('iql', task); c.agent = {1: 2, 'lr': 3}; return c",
)
# What may stand behind a door.
THINGS = (
    *("None", "3", "'x'", "print", "object()", "type", "[]", "lambda: None"),
    *("lambda *a, **k: {}", "lambda *a, **k: 1 / 0", "__import__('sys').exit", "int"),
    "lambda *a, **k: (_ for _ in ()).throw(SystemExit('enough'))",
    "lambda *a, **k: (_ for _ in ()).throw(ValueError('a\\nb'))",
    "__import__('o2ojax').agents.AGENTS.find('iql')._replace(config=int)",
    "__import__('o2ojax').agents.AGENTS.find('iql')._replace(config=None)",
    "__import__('o2ojax').agents.AGENTS.find('iql')._replace(recipe=None)",
    "__import__('o2ojax').agents.AGENTS.find('iql')._replace(recipe=lambda *a: 3)",
    "__import__('o2ojax').agents.AGENTS.find('iql')._replace(needs=lambda c: 3)",
    "__import__('o2ojax').replay.STORES.find('uniform')._replace(options=None)",
    "__import__('o2ojax').replay.STORES.find('uniform')._replace(build=None)",
    "__import__('o2ojax').types.Transition(*[None] * 7)",
    "lambda: __import__('o2ojax').types.Transition(*[None] * 7)",
    "lambda: __import__('o2ojax').types.Transition(*[1.0] * 7)",
    "lambda: __import__('o2ojax').types.Transition(*[[]] * 7)",
    "lambda: __import__('o2ojax').types.Transition(*[['a']] * 7)",
    "lambda: __import__('o2ojax').types.Env(*[None] * 4)",
    "__import__('o2ojax').types.Env(*[print] * 4)",
)
DOORS = ("algorithm", "env", "dataset", "replay.name")


def fields_of(config: ConfigDict, prefix: str = "") -> list[str]:
    found = []
    for name, value in config.items():
        nested = isinstance(value, ConfigDict)
        found += fields_of(value, f"{prefix}{name}.") if nested else [prefix + name]
    return found


def small(config: ConfigDict) -> None:
    """Cuts a config down so that a probe of it is quick."""
    for name in ("widths", "actor_widths", "vae_widths", "encoder_widths"):
        if name in config.agent:
            config.agent[name] = (8, 8)
    config.seeds = 2


def put(config: ConfigDict, path: list[str], value: Any) -> None:
    """Sets a field as a config's file does, unless ConfigDict refuses it."""
    node = config
    with contextlib.suppress(
        TypeError, ArithmeticError, ValueError, LookupError, AttributeError
    ):
        for part in path[:-1]:
            node = node[part] if isinstance(node.get(part), ConfigDict) else config
        node[path[-1]] = value


def probe(run: RunConfig) -> None:
    """Traces all that a run would compile."""
    job = prepare(run, Path("."))
    sizes, programs, step = job.sizes, job.programs, np.int32(0)
    members, dataset = job.members, job.dataset

    def learn(phase: population.Phase, state, size):
        turn = getattr(phase.learn, "turn", None)  # on a CPU, members take turns
        if turn is None:
            return phase.learn.eval_shape(state, members, dataset, step, size)[0]
        given = (state, np.int32(0), members, dataset, step, size)
        return turn.eval_shape(*given)[0]

    state = programs.init.eval_shape(members, dataset)
    if sizes.offline_updates:
        state = learn(programs.offline, state, 1)
    if sizes.offline_updates or run.offline.source:
        programs.offline.evaluate.eval_shape(state, members, dataset, step)
    if sizes.online_steps:
        state = programs.hand_over.eval_shape(state, members, dataset)
        state = learn(programs.online, state, (1, sizes.updates_per_round))
        programs.online.evaluate.eval_shape(state, members, dataset, step)


class Fuzzer:
    def __init__(self, folder: Path):
        self.folder = folder
        self.configs = ROOT / "experiments" / "configs"
        self.number = 0

    def draw(self, chance: random.Random) -> Case:
        what = chance.choice([*CONFIGS, *CONFIGS, "file", "door", "door", "sweep"])
        name = what if what in CONFIGS else chance.choice(CONFIGS)
        config = resolve.load(f"{self.configs}/{name}")
        known = fields_of(config)
        todo: list[tuple] = []
        if what == "file":
            todo.append(("file", chance.randrange(len(FILES)), chance.choice(WORDS)))
        elif what == "door":
            todo.append(("door", chance.choice(DOORS), chance.randrange(len(THINGS))))
        elif what == "sweep":
            for _ in range(chance.choice((1, 1, 2, 3, 14))):
                field = chance.choice([*known, *known, "config", "population.lr", "x"])
                values = [
                    chance.randrange(len(VALUES))
                    for _ in range(chance.choice((1, 1, 2)))
                ]
                todo.append(("grid", field, tuple(values)))
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            if what in ("file", "sweep"):
                break
            path = chance.choice(known)
            if chance.random() < 0.05:
                path = path.partition(".")[0]
            if chance.random() < 0.05:
                path += chance.choice(("x", ".x", ".", "..", "é"))
            if chance.random() < 0.1:
                field = chance.choice(("lr", "gamma", "widths", "expectile"))
                path = f"population.{field}"
            todo.append(("value", path, chance.randrange(len(VALUES))))
        for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
            path = chance.choice([*known, "population.lr", "population.gamma"])
            word = chance.choice(WORDS) if chance.random() < 0.9 else self._text(chance)
            todo.append(("override", f"--config.{path}={word}"))
        if what in CONFIGS and chance.random() < 0.02:
            todo.append(("probe",))
        return name if what in CONFIGS else what, todo

    def _text(self, chance: random.Random) -> str:
        letters = "0123456789.,-+e()[]{}'\"_:/\\ abjinftrue\u00e9\u65e5\x00\n=*"
        return "".join(chance.choice(letters) for _ in range(chance.randrange(12)))

    def run(self, case: Case) -> bool:
        what, todo = case
        if what == "sweep":
            return self._sweep(todo)
        name, task = f"{self.configs}/{what}", ""
        if what == "file":
            written = [FILES[x[1]] for x in todo if x[0] == "file"] or [""]
            task = next((x[2] for x in todo if x[0] == "file"), "")
            name = f"{self._file(written[0])}:{task}"
        if what == "door":
            name = f"{self.configs}/iql.py:hopper-random"
        config = resolve.load(name)
        if what != "file":
            small(config)
        for change in todo:
            if change[0] == "value":
                put(config, change[1].split("."), VALUES[change[2]])
        overrides = [change[1] for change in todo if change[0] == "override"]
        for change in todo:
            if change[0] == "door":
                file = self._file(f"THING = {THINGS[change[2]]}")
                overrides.append(f"--config.{change[1]}={file}:THING")
        resolve.override(config, overrides)
        run = resolve.resolve(config)
        workdir.default_workdir(run)
        if what == "door":
            prepare(run, self.folder)
        if ("probe",) in todo:
            probe(run)
        return True

    def _file(self, text: str) -> Path:
        """A new file, as Python keeps what it has imported."""
        self.number += 1
        path = self.folder / f"file_{self.number}.py"
        path.write_text(text)
        return path

    def _sweep(self, todo: list[tuple]) -> bool:
        grid = {x[1]: tuple(VALUES[at] for at in x[2]) for x in todo if x[0] == "grid"}
        grid = {"config": (f"{self.configs}/iql.py:hopper-random",)} | grid
        import tests.fuzz.configs as here  # the sweep's file reads it there

        here.GRID = grid
        path = self._file(
            "from tests.fuzz import configs\ndef get_sweep(): return configs.GRID"
        )
        given = [f"--sweep={path}", f"--workdir={self.folder / 'sweep'}", "--dry-run"]
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            status = sweep.main([*given, *(x[1] for x in todo if x[0] == "override")])
        if status == 2:
            raise UserError(said.getvalue().rstrip("\n").removeprefix("error: "))
        assert status == 0, status
        for trial in sweep.trials.plan(
            path,
            None,
            [x[1] for x in todo if x[0] == "override"],
            self.folder / "sweep",
            {},
        ):
            with workdir.sole_owner(trial.directory):
                pass
        return True
