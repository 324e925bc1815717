"""The nouns: tuples of arrays, and tuples of pure functions.

Axis letters, used in every shape comment of the package:

    M  members of the population       B  rows of a batch
    E  members of an ensemble          N  rows of a dataset or of a ring
    W  environments of one member      T  time
    O  observation, A  action          H  transitions of a window
    K  actions or plans compared       L  dimensions of a latent variable
    Z  dimensions of a latent state    P  plans that a policy proposes
    G  tasks                           C  rows that a task is inferred from
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Array = jax.Array
Key = jax.Array  # a typed key, from `jax.random.key`
Params = Any  # weights: a pytree of arrays
Metrics = dict[str, Array]  # scalars, by name
Obs = Any  # [..., O], or a dict of modalities
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
    """

    obs: Obs
    action: Array
    reward: Array
    discount: Array
    next_obs: Obs
    last: Array
    task: Array


class Batch(NamedTuple):
    """What a store hands out.

    data:    Transition, [B], or [B, H] for windows, or [G, B] for tasks.
    weight:  [B]  importance weights, of critics' errors or of a model's; 1 if unused.
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

    init:    (key) -> state.
    update:  (state, batch, key) -> (state, Info).
    explore: the Policy that gathers data.
    exploit: the Policy that is judged.
    oracle:  as `exploit`, by an agent that infers its task, which need not explore
             first: it is told the task by what the store offers. None for the others.
    """

    init: Callable
    update: Callable
    explore: Policy
    exploit: Policy
    oracle: Policy | None = None


class Buffer(NamedTuple):
    """A store of experience.

    init:    () -> replay.
    add:     (replay, transitions [N]) -> replay.
    sample:  (replay, key) -> (replay, Batch). A store may refit itself when read.
    update_priorities: (replay, batch, info) -> replay, for stores that are prioritised
             by what an update found; identity for the others.
    trial_context: (replay, task, key) -> what a trial starts from; () for most.
    """

    init: Callable
    add: Callable
    sample: Callable
    update_priorities: Callable
    trial_context: Callable


class Recipe(NamedTuple):
    """Offline to online.

    hand_over: (agent_state, replay, key) -> (agent_state, replay): from what the
               offline phase leaves to what the online phase starts with.
    """

    offline: Agent
    offline_buffer: Buffer
    hand_over: Callable
    online: Agent
    online_buffer: Buffer


class EnvSpec(NamedTuple):
    """What is known of an environment before it runs.

    horizon: steps after which an episode is cut; the task itself goes on.
    num_tasks: of a family; a member's environments are dealt them in turn, or, where
        trials begin anew, at random.
    num_test: the last so many are for judging alone; 0: judged on those trained on.
    """

    name: str
    obs_dim: int
    action_dim: int
    horizon: int
    num_tasks: int = 1
    num_test: int = 0

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
    success: (obs [..., O]) -> [...], whether the task is done in what is seen; asked of
        a transition's `next_obs`. None where a task is never done.
    """

    spec: EnvSpec
    reset: Callable
    step: Callable
    success: Callable | None = None


class Workers(NamedTuple):
    """A member's environments, and what its policy remembers in each. Leaves [W]."""

    env: EnvState
    memory: Memory


class Played(NamedTuple):
    """What came of episodes that were played to judge a policy.

    returns: [episode]  undiscounted; of a trial, its last episode's.
    success: [episode]  whether the last step left the task done (and not, as others
             count, whether any step did); () where a task is never done.
    before:  [episode, trial - 1]  returns of the trial's other episodes; () where a
             trial is one episode.
    adaptation: scalars of agents that infer their task, see `adaptation`; () else.
    """

    returns: Array
    success: Any
    before: Any = ()
    adaptation: Metrics | tuple[()] = ()


class Run(NamedTuple):
    """All that changes during a run: save this, and only this."""

    agent: AgentState
    replay: Replay
    workers: Workers | tuple[()]  # () during the offline phase
