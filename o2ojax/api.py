"""Training, results and policies from Python: what `import o2ojax` offers.

run = o2ojax.train("iql", env="hopper", dataset="hopper-medium-replay", seeds=4)
policy = run.policy()
state = policy.start(seed=0)
action, state = policy.act(obs, state)
policy.export("hopper.o2o")
"""

import functools
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from o2ojax import exported, report
from o2ojax.data.files import write_whole
from o2ojax.envs import NONE
from o2ojax.errors import UserError
from o2ojax.exported import Player, State
from o2ojax.meta.task_store import TrialContext
from o2ojax.parallel import compiled
from o2ojax.run import job as jobs
from o2ojax.run import population, resolve, training
from o2ojax.run import workdir as directories
from o2ojax.run.checkpoint import Checkpoints
from o2ojax.run.config import defaults
from o2ojax.run.progress import Progress
from o2ojax.types import EnvSpec, Policy, Run, Transition

PLATFORMS = ("cpu", "cuda")  # on which an exported policy acts


def train(
    config: str | ConfigDict,
    env: str | None = "",
    dataset: str | Path = "",
    seeds: int | Sequence[int] = 4,
    workdir: str | Path | None = None,
    extend: bool = False,
    **fields: Any,
) -> "Trained":
    """Trains agents offline, then online, or goes on with what the directory holds.

    Args:
        config: the name of an algorithm, or a config as its file returns it.
        env, dataset, seeds: as in a config; for a config, they are in it. An `env` of
            None is for no environment.
        workdir: the run's directory; by default `runs/ALGORITHM/DATASET`.
        extend: go on with a finished run by more updates or steps than it was planned
            for.
        fields: further fields of the config by their dotted names, as
            `**{"agent.expectile": 0.9, "online.steps": 20_000}`.
    Raises:
        UserError: a field is unknown or invalid, or the data do not fit; the message
            says what is wrong and what would be right.
    """
    if env is not None and not isinstance(env, (str, Path)):
        raise UserError(
            f"env is a {type(env).__name__}; it must be a name: one of ours,"
            " gymnasium:ID, or file.py:FUNCTION of a function that makes it"
        )
    if isinstance(config, str):
        config = defaults(config, NONE if env is None else str(env))
        config.dataset, config.seeds = str(dataset), seeds
    else:
        config = config.copy_and_resolve_references()
    resolve.put(config, fields)
    parsed = resolve.resolve(config)
    directory = Path(workdir or directories.default_workdir(parsed))
    compiled.use_cache()
    extend = extend and directories.is_longer(parsed, directory)
    if extend or directories.summary_of(parsed, directory) is None:
        training.train(parsed, directory, Progress(), extend)
    return Trained(directory)


def load(directory: str | Path) -> "Trained":
    """Opens the directory of a finished run.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return Trained(directory)


class Trained:
    """A finished run, in its directory.

    returns: float32 [point, member, episode], of every evaluation.
    success: likewise, where the environment tells it; None else.
    phase, step: [point], when an evaluation was.
    config, summary: the contents of `config.json` and `summary.json`.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        self._result = report.read(self.directory)
        self.config, self.summary = self._result.config, self._result.summary
        curves = self._result.curves
        self.returns, self.success = curves.returns, curves.success
        self.phase, self.step = curves.phase, curves.step

    def __repr__(self) -> str:
        """What it is, and where."""
        return f"<{report.title(self._result)}, in {self.directory}>"

    def table(self) -> str:
        """The results, as a table in Markdown."""
        return report.markdown([self.summary])

    def figure(self, path: str | Path) -> Path:
        """Draws the learning curves into a file."""
        report.draw([self._result], path)
        return Path(path)

    def policy(
        self,
        member: int | None = None,
        checkpoint: int | str | None = None,
        explore: bool = False,
    ) -> "RunPolicy":
        """A member's policy, which needs neither the environment nor the data.

        Args:
            member: its number; None for the one with the best last score.
            checkpoint: its number, as the folders in `checkpoints/` are named; "best"
                for the one that `config.checkpoint.best` keeps; None for the newest.
            explore: as it gathers data, rather than as it is judged.
        Raises:
            UserError: there is no such member or checkpoint, or it is damaged.
        """
        number = report.choose(self._result, member)
        return _restored(self.directory, number, checkpoint, explore)


def _restored(
    directory: Path, member: int, checkpoint: int | str | None, explore: bool
) -> "RunPolicy":
    described = directories.read_description(directory) or {}
    directories.refuse_another_format(described, directory)
    directories.hold_agents(described, directory)
    config, spec = resolve.from_json(described, check=False), jobs.spec_from(described)
    folder = directory / ("best" if checkpoint == "best" else "checkpoints")
    if not os.path.isdir(folder):
        hint = "; config.checkpoint.best=True keeps it" if checkpoint == "best" else ""
        raise UserError(f"there is no {folder}{hint}")
    checkpoints = Checkpoints(folder, read_only=True)
    known = checkpoints.numbers()
    newest = checkpoint in (None, "best")
    number = max(known, default=None) if newest else checkpoint
    if number not in known:
        raise UserError(
            f"{folder} has no checkpoint {number}; it has {known or 'none'}"
        )
    phase = checkpoints.record(number)["phase"]
    everyone = population.members(config.agent, config.seeds, config.population)
    sizes = jobs.sizes_of(config, 1.0, described["store_steps"])
    like = population.agent_shape(config.entry, spec, sizes, phase, everyone)
    restored = checkpoints.restore(
        number, Run(like, (), ()), part=True, put=lambda leaf: jnp.asarray(leaf[member])
    )
    checkpoints.close()
    own = jax.tree.map(lambda leaf: leaf[member], everyone.config)
    recipe = config.entry.recipe(spec, own, jobs.plan_from(described))
    agent = getattr(recipe, phase)
    acts = agent.explore if explore else agent.exploit
    provenance = {
        "member": described["members"][member],
        "checkpoint": number,
        **{name: described[name] for name in ("algorithm", "env", "dataset")},
        **{name: described.get(name) for name in ("versions", "commit")},
    }
    if isinstance(spec.obs, dict):
        provenance["pixels"] = described["pixels"]
    return RunPolicy(acts, agent.oracle, restored.agent, spec, provenance)


class RunPolicy(Player):
    """A policy of a run: it acts as any `Player`, and can be exported.

    acts, state: as a `types.Policy`, and the state of its agent.
    spec: of its environment.
    """

    def __init__(
        self,
        acts: Policy,
        told: Policy | None,
        state: Any,
        spec: EnvSpec,
        provenance: Mapping[str, Any],
    ):
        """
        Args:
            acts: the policy.
            told: the same, which is told its task; None for an agent that infers none.
            state: of the agent.
        """
        self.acts, self.state, self.spec = acts, state, spec
        self._told = told
        self._functions = _functions(acts, state)
        weights = jax.tree.leaves(state)
        low, high = spec.action_bounds or (
            (-1.0,) * spec.action_dim,
            (1.0,) * spec.action_dim,
        )
        about = {
            "format": exported.FORMAT,
            "obs": list(spec.obs_keys),
            "num_obs": spec.obs_dim,
            "parts": parts_of(spec),
            "low": [float(x) for x in low],
            "high": [float(x) for x in high],
            "provenance": dict(provenance),
        }
        super().__init__(
            {
                name: functools.partial(jax.jit(function), weights)
                for name, function in self._functions.items()
            },
            about,
        )

    def start(
        self,
        seed: int = 0,
        num: int | None = None,
        context: Transition | None = None,
    ) -> State:
        """Begins an episode; of an agent that infers its task, a trial of episodes.

        Args:
            seed, num: as in `Player.start`.
            context: rows of the task, leaves [rows, ...] in the environment's units, by
                which such an agent is told its task: it then need not explore first.
        Raises:
            UserError: the agent infers no task.
        """
        if context is None:
            return super().start(seed, num)
        if self._told is None:
            raise UserError("this agent infers no task, so it starts without a context")
        rows = context._replace(action=self.in_box(context.action))
        memory = self._told.start(
            self.state, TrialContext(rows, rows), jax.random.key(seed)
        )
        one = State(tuple(jax.tree.leaves(memory)), np.uint32([0, seed]))
        return one if num is None else exported.stacked([one] * num)

    def export(self, path: str | Path) -> Path:
        """Writes the policy as one file, which `o2ojax.exported.load` reads.

        Raises:
            OSError: the file cannot be written.
        """
        weights, files = jax.tree.leaves(self.state), {}
        used: dict[str, list[int]] = {}
        for name, inputs in self._inputs().items():
            function = self._functions[name]
            used[name] = _used(function, weights, inputs)
            chosen = [weights[at] for at in used[name]]
            partly = _of_some(function, weights, used[name])
            with _without_places():
                made = jax.export.export(jax.jit(partly), platforms=PLATFORMS)
                files[f"{name}.stablehlo"] = bytes(made(chosen, *inputs).serialize())
        numbers = sorted({at for chosen in used.values() for at in chosen})
        arrays = io.BytesIO()
        np.savez(arrays, **{str(at): np.asarray(weights[at]) for at in numbers})
        files["weights.npz"] = arrays.getvalue()
        files["about.json"] = json.dumps(self.about | {"weights": used}, indent=2)

        def write(temporary: Path) -> None:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
                for name, content in files.items():
                    file.writestr(name, content)

        write_whole(Path(path), write)
        return Path(path)

    def _inputs(self) -> dict[str, tuple]:
        """Arguments of each program, besides the weights."""
        memory, key = super().start()
        obs = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.spec.obs)
        action = np.zeros(self.spec.action_dim, np.float32)
        return {
            "start": (key,),
            "act": (memory, obs, key),
            "observe": (memory, obs, action, np.float32(0), obs, np.bool_(False)),
        }


def parts_of(spec: EnvSpec) -> dict[str, tuple[list[int], str]]:
    """Shape and dtype of each part of an observation; {} of a vector."""
    if not isinstance(spec.obs, dict):
        return {}
    return {name: (list(x.shape), str(x.dtype)) for name, x in spec.obs.items()}


def _functions(policy: Policy, state: Any) -> dict[str, Callable]:
    """A policy as functions of flat lists of weights and of arrays."""
    whole = jax.tree.structure(state)
    memory_of = jax.tree.structure(
        jax.eval_shape(policy.start, state, (), jax.random.key(0))
    )

    def start(weights, key):
        key, own = jax.random.split(jax.random.wrap_key_data(key))
        memory = policy.start(whole.unflatten(weights), (), own)
        return tuple(jax.tree.leaves(memory)), jax.random.key_data(key)

    def act(weights, memory, obs, key):
        key, own = jax.random.split(jax.random.wrap_key_data(key))
        memory = memory_of.unflatten(memory)
        action, memory = policy.act(whole.unflatten(weights), memory, obs, own)
        return action, tuple(jax.tree.leaves(memory)), jax.random.key_data(key)

    def observe(weights, memory, obs, action, reward, next_obs, last):
        going_on, task = jnp.ones(()), jnp.int32(0)
        seen = Transition(obs, action, reward, going_on, next_obs, last, task)
        memory = memory_of.unflatten(memory)
        memory, _ = policy.observe(whole.unflatten(weights), memory, seen)
        return tuple(jax.tree.leaves(memory))

    return {"start": start, "act": act, "observe": observe}


@contextmanager
def _without_places() -> Iterator[None]:
    """Programs that are made here do not name the files on this machine."""
    before = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _used(function: Callable, weights: list, inputs: tuple) -> list[int]:
    """Which of the weights a function reads."""
    made = jax.export.export(jax.jit(function))(weights, *inputs)
    return [at for at in made.module_kept_var_idx if at < len(weights)]


def _of_some(function: Callable, like: list, used: Sequence[int]) -> Callable:
    """The function with those weights alone; it does not read the others."""

    def partly(weights, *inputs):
        whole = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in like]
        for at, leaf in zip(used, weights, strict=True):
            whole[at] = leaf
        return function(whole, *inputs)

    return partly
