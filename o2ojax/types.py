"""The nouns: tuples of arrays, and tuples of pure functions.

Axis letters, used in every shape comment of the package:

    M  members of the population       B  rows of a batch
    E  members of an ensemble          N  rows of a dataset or of a ring
    W  environments of one member      T  time
    O  observation, A  action          H  transitions of a window
    K  actions or plans compared       L  dimensions of a latent variable
    Z  dimensions of a latent state,   P  plans that a policy proposes
       or of a latent task             C  rows that a task is inferred from
    G  tasks
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array  # a typed key, from `jax.random.key`
Params = Any  # weights: a pytree of arrays
Metrics = dict[str, Array]  # scalars, by name
Obs = Any  # [..., O], or a dict of named parts, each [..., *its own shape]
AgentState = Any
Memory = Any
Replay = Any


class Transition(NamedTuple):
    """One step of an environment, under any leading axes.

    obs:      [..., O]  what was seen.
    action:   [..., A]  what was done, in [-1, 1].
    reward:   [...]     what it earned.
    discount: [...]     0 where the task ended, else 1, also at time limits.
    next_obs: [..., O]  what was seen next, before any automatic restart.
    last:     [...]     True where the episode stopped, for any reason.
    task:     [...]     int32, which task of a family; 0 where there is one.
    extras:   by name, [..., *its own shape]: what an algorithm asks of its data
              besides, as "return_to_go"; {} for most.
    """

    obs: Obs
    action: Array
    reward: Array
    discount: Array
    next_obs: Obs
    last: Array
    task: Array
    extras: dict[str, Array] = {}


class Batch(NamedTuple):
    """What a store hands out.

    data:    Transition, [B], or [B, H] for windows, or [G, B] for tasks.
    weight:  [B]  importance weights, of critics' errors, of a model's, or of
             behaviour cloning's; 1 if unused.
    index:   [B]  rows of the store, for `Buffer.update_priorities`; [G, B] for tasks.
    context: Transition [G, C] for agents that infer their task, () for the others.
    metrics: what the store tells of itself, told beside what the update tells.
    """

    data: Transition
    weight: Array
    index: Array
    context: Any = ()
    metrics: Any = ()


class Info(NamedTuple):
    """What an update tells.

    metrics:  scalars, under fixed names.
    td_error: [B] for stores that ask for it, () else.
    """

    metrics: Metrics
    td_error: Any = ()


class Policy(NamedTuple):
    """A way to act. Its memory lasts a trial of one or more episodes of one task.

    start:   (agent_state, trial_context, key) -> memory. The context is what the store
             offers to a trial, () for most.
    act:     (agent_state, memory, obs [O], key) -> (action [A], memory).
    observe: (agent_state, memory, transition) -> (memory, transition): what is
             carried on, and what is stored.
    """

    start: Callable
    act: Callable
    observe: Callable


class Agent(NamedTuple):
    """An algorithm, its hyper-parameters chosen.

    init:    (key) -> state; None for an agent that only goes on from another's.
    update:  (state, batch, key) -> (state, Info).
    explore: the Policy that gathers data.
    exploit: the Policy that is judged.
    oracle:  as `exploit`, by an agent that infers its task, which need not explore
             first: it is told the task by what the store offers. None for the others.
    q:       (state, obs [..., O], action [..., A]) -> [E, ...], what its critics say;
             None where it has none of that form.
    """

    init: Callable | None
    update: Callable
    explore: Policy
    exploit: Policy
    oracle: Policy | None = None
    q: Callable | None = None


def _unchanged(replay, *given):
    del given
    return replay


def _no_context(replay, task, key):
    del replay, task, key
    return ()


class Buffer(NamedTuple):
    """A store of experience.

    init:    () -> replay.
    sample:  (replay, key) -> (replay, Batch). A store may refit itself when read. None
             for one that holds nothing.
    add:     (replay, transitions [N]) -> replay. None for one that takes none.
    update_priorities: (replay, batch, info) -> replay, for stores that are prioritised
             by what an update found.
    trial_context: (replay, task, key) -> what a trial starts from; () for most.
    """

    init: Callable
    sample: Callable | None
    add: Callable | None = None
    update_priorities: Callable = _unchanged
    trial_context: Callable = _no_context


EMPTY = Buffer(init=lambda: (), sample=None)  # of a run that has no data yet


def _keep_learning(agent_state, old, fresh, key):
    del old, key
    return agent_state, fresh


class Recipe(NamedTuple):
    """Offline to online.

    offline, online: the agent of either phase.
    hand_over: (agent_state, old, fresh, key) -> (agent_state, replay): from what the
        offline phase leaves, its agent and its store, to what the online phase starts
        with. `fresh` is its store, with nothing gathered yet.
    """

    offline: Agent
    online: Agent
    hand_over: Callable = _keep_learning


class EnvSpec(NamedTuple):
    """What is known of an environment before it runs.

    obs: `jax.ShapeDtypeStruct` of an observation; of each part, where it is a dict.
    horizon: steps after which an episode is cut; the task itself goes on.
    num_tasks: of a family; a member's environments are dealt them in turn, or, where
        trials begin anew, at random.
    decision_time: seconds between two decisions; 0 where time means nothing.
    num_test: the last so many are for judging alone; 0: judged on those trained on.
    action_bounds: lowest and highest action, [A] each, in a user's units, over which
        those in [-1, 1] are stretched; None where these are the units.
    pure: whether the same seed and actions always lead to the same states.
    obs_keys: entries of a user's Dict observations that are joined, in order.
    stack: frames that each image of an observation shows, uint8 [H, W, C * stack], the
        newest one last. An episode's first one stands for those before it.
    full: whether no episode ends before the horizon.
    """

    name: str
    obs: Any
    action_dim: int
    horizon: int
    num_tasks: int = 1
    num_test: int = 0
    decision_time: float = 0.0
    action_bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    pure: bool = True
    obs_keys: tuple[str, ...] = ()
    stack: int = 1
    full: bool = False

    @property
    def obs_dim(self) -> int:
        """Numbers of an observation, all its parts together."""
        return sum(math.prod(part.shape) for part in jax.tree.leaves(self.obs))

    @property
    def num_train(self) -> int:
        """Tasks that a member's environments are dealt."""
        return self.num_tasks - self.num_test


class EnvState(NamedTuple):
    """One environment between two steps.

    physics: the simulator's own state.
    obs:     [O]  what the agent sees now.
    age:     []   int32, steps since the episode began.
    task:    []   int32.
    """

    physics: Any
    obs: Obs
    age: Array
    task: Array


class Env(NamedTuple):
    """An environment that restarts itself, in the same task.

    reset: (key, task) -> EnvState.
    step:  (EnvState, action [A], key) -> (EnvState, Transition).
    success: (EnvState after a step, its Transition, leaves [...]) -> [...], whether the
        task is done by then, or how much of it. None where a task is never done.
    render: (EnvState, leaves [T, ...]) -> uint8 [T, height, width, 3], on the host.
        None where there is nothing to see.
    check: () -> None, called on the host after each compiled call. Raises UserError for
        what has gone wrong in it, which a compiled program cannot.
    seen: [N, O], the observations of some steps that were tried; None where none were.
    """

    spec: EnvSpec
    reset: Callable
    step: Callable
    success: Callable | None = None
    render: Callable | None = None
    check: Callable[[], None] = lambda: None
    seen: Any = None


class Workers(NamedTuple):
    """A member's environments, and what its policy remembers in each. Leaves [W]."""

    env: EnvState
    memory: Memory


class Played(NamedTuple):
    """What came of episodes that were played to judge a policy.

    returns: [episode]  undiscounted; of a trial, its last episode's.
    metrics: what else was measured, by name. "success" [episode], where a task can be
        done: whether the last step left it done; in environments of Gymnasium, whether
        any step did. "episode_1", ... [episode]: returns of a trial's earlier episodes.
        Scalars of agents that infer their task, see `meta.adaptation`.
    """

    returns: Array
    metrics: Metrics


class Run(NamedTuple):
    """All that changes during a run: save this, and only this."""

    agent: AgentState
    replay: Replay
    workers: Workers | tuple[()]  # () during the offline phase


def vector(size: int) -> jax.ShapeDtypeStruct:
    """An `EnvSpec.obs` of so many numbers, float32."""
    return jax.ShapeDtypeStruct((size,), jnp.float32)
