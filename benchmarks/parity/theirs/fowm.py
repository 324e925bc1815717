"""FOWM's original: fyhMer/fowm."""

import contextlib
import io
import types
from typing import Any

import jax
import numpy as np

from benchmarks.parity.fowm import A, B, H, O
from benchmarks.parity.harness import DTYPE, Over
from benchmarks.parity.report import Weights, as_numpy
from benchmarks.parity.theirs import Feed, original
from benchmarks.parity.theirs.torch_side import layer, load, tensor, torch
from o2ojax.agents import fowm, fowm_networks
from o2ojax.types import Array, Transition

NORMALS, PAIRS = Feed(), Feed()
CHOSEN: dict[str, Any] = {}  # which elite we chose, and by which chances they would
TDMPC, HELPER = original("fowm/src", "algorithm.tdmpc", "algorithm.helper")
CPU = torch.device("cpu")


def choice(num: Any, size: Any = None, replace: bool = True, p: Any = None) -> Any:
    """Stands in for NumPy's: of an elite, where it has chances, or of two critics."""
    if p is not None:
        CHOSEN["chances"] = np.array(p, copy=True)
        return CHOSEN["index"]
    return PAIRS.take((2,)).astype(int)


def prepare() -> None:
    """Our draws, and no device but the CPU."""
    TDMPC.torch = Over(
        torch,
        device=lambda name: CPU,
        randn=lambda *shape, device=None: tensor(NORMALS.take(shape)),
    )
    TDMPC.np = Over(np, random=Over(np.random, choice=choice))
    HELPER._standard_normal = lambda shape, dtype, device: tensor(NORMALS.take(shape))
    torch.nn.Module.cuda = torch.Tensor.cuda = lambda self: self


prepare()


def config_of(config: fowm.FOWMConfig, batch: int = B) -> types.SimpleNamespace:
    """The original's config, by our names of the same numbers."""
    return types.SimpleNamespace(
        modality="state",
        obs_shape=(O,),
        action_dim=A,
        action_shape=(A,),
        latent_dim=config.latent_dim,
        mlp_dim=config.width,
        enc_dim=config.encoder_width,
        num_q=config.num_critics,
        lr=config.lr,
        std_schedule=config.min_std,
        horizon_schedule=config.horizon,
        horizon=config.horizon,
        batch_size=batch,
        discount=config.gamma,
        mpc=True,
        iterations=int(config.iterations),
        num_samples=config.num_samples,
        num_elites=config.num_elites,
        # int(coef * samples) must come out as our number
        mixture_coef=(config.num_proposals + 0.5) / config.num_samples,
        min_std=config.min_std,
        max_std=config.max_std,
        temperature=config.temperature,
        momentum=config.momentum,
        uncertainty_cost=config.penalty,
        seed_steps=0,
        rho=config.rho,
        expectile=config.expectile,
        A_scaling=config.beta,
        consistency_coef=config.consistency_weight,
        reward_coef=config.reward_weight,
        value_coef=config.value_weight,
        grad_clip_norm=config.max_grad,
        per=True,
        per_alpha=0.6,
        per_beta=0.4,
        update_freq=2,
        tau=config.target_rate,
        buffer_device="cpu",
        max_buffer_size=64,
        train_steps=64,
        episode_length=8,
        data_first_percent=1.0,
    )


# --- weights


def at(sequence: Any, *places: int) -> list:
    """The weights of some of a Sequential's modules."""
    return [x for place in places for x in layer(sequence[place])]


def value(sequence: Any) -> list:
    """V, or a critic."""
    return at(sequence, 0, 1, 3, 5)


def head(sequence: Any) -> list:
    """Reward and policy: normalised layers, and a last one."""
    return at(sequence, 0, 1, 3, 4, 6)


def dynamics(sequence: Any) -> list:
    """The dynamics, whose last layer's norm is apart."""
    return head(sequence[0]) + layer(sequence[1])


# --- updates


class Given:
    """A store for the original that hands out given windows."""

    def __init__(self, data: Transition, weight: np.ndarray, batch: int = 0):
        self.data, self.weight = data, weight
        self.cfg = types.SimpleNamespace(batch_size=batch)

    def sample(self) -> tuple:
        """As its store's: time comes first."""
        d = self.data

        def in_time(x):
            return tensor(np.swapaxes(np.asarray(x), 0, 1))

        return (
            tensor(d.obs[:, 0]),
            in_time(d.next_obs),
            in_time(d.action),
            in_time(d.reward)[..., None],
            in_time(d.discount)[..., None],
            in_time(d.last)[..., None],
            torch.arange(len(d.obs)),
            tensor(self.weight),
        )

    def update_priorities(self, index: Any, priorities: Any) -> None:
        """Keeps them to be compared."""
        self.priorities = as_numpy(priorities)[:, 0]


class Theirs:
    """Its agent.

    Args:
        guard: how far inside [-1, 1] its noisy actions stay; ours, 0.
        cuts: whether gradients have to be so large that they are cut.
    """

    def __init__(
        self,
        start: Weights,
        config: fowm.FOWMConfig,
        guard: float = 1e-6,
        cuts: bool = False,
    ):
        HELPER.TruncatedNormal.__init__.__defaults__ = (-1.0, 1.0, guard)
        self.config, self.cuts = config, cuts
        self.them = TDMPC.TDMPC(config_of(config))
        load(self.weights(), start)

    def weights(self) -> dict[str, list]:
        """By network."""
        model, target = self.them.model, self.them.model_target
        return dict(
            encoder=at(model._encoder, 0, 2, 3),
            dynamics=dynamics(model._dynamics),
            reward=head(model._reward),
            critics=[x for one in model._Qs for x in value(one)],
            value=value(model._V),
            policy=head(model._pi),
            target_encoder=at(target._encoder, 0, 2, 3),
            target_critics=[x for one in target._Qs for x in value(one)],
        )

    def update(
        self,
        data: Transition,
        weight: np.ndarray,
        step: int,
        online: bool,
        key: jax.Array,
    ) -> dict[str, Any]:
        """One update: its weighted loss terms, and priorities [B].

        Theirs begins at step 1, where ours is at 0, as targets move at even ones.
        """
        for k in jax.random.split(key):  # of the model, and of the policy
            PAIRS.put(fowm_networks.sample_pair(k, self.config.num_critics))
        told, priorities = self.step(data, weight, step, online)
        PAIRS.done()
        c = self.config
        assert (told["grad_norm"] > c.max_grad) == self.cuts
        return dict(
            consistency=c.consistency_weight * told["consistency_loss"],
            reward=c.reward_weight * told["reward_loss"],
            Q=c.value_weight * told["Q_value_loss"],
            V=c.value_weight * told["V_value_loss"],
            q=told["Q"],
            priorities=priorities,
        )

    def step(
        self, data: Transition, weight: np.ndarray, step: int, online: bool
    ) -> tuple[dict, np.ndarray]:
        """What it tells of an update, and its priorities [B].

        Online, a batch is half of the dataset; ours has the dataset's half first,
        theirs what was gathered, but a batch's order does not matter.
        """
        if not online:
            store = Given(data, weight, B)
            return self.them.update(store, step), store.priorities
        self.them.cfg.demo_schedule = 0.5
        old, new = (
            Given(jax.tree.map(lambda x, half=half: x[half], data), weight[half])
            for half in (slice(B // 2), slice(B // 2, None))
        )
        told = self.them.update(new, step, old)
        return told, np.concatenate([old.priorities, new.priorities])

    def put_plan_draws(self, key: jax.Array) -> None:
        """What our search draws from this key."""
        c = self.config
        key_policy, key_pair, key_search = jax.random.split(key, 3)
        noise = jax.random.normal(key_policy, (c.num_proposals, H, A), DTYPE)
        NORMALS.put(*np.swapaxes(noise, 0, 1))
        for round_ in range(int(c.iterations)):
            key_round = jax.random.fold_in(key_search, round_)
            key_sample, key_score = jax.random.split(key_round)
            drawn = jax.random.normal(key_sample, (c.num_samples, H, A), DTYPE)
            NORMALS.put(np.swapaxes(drawn, 0, 1))
            keys = jax.random.split(key_score, c.num_samples + c.num_proposals)
            NORMALS.put(jax.vmap(lambda k: jax.random.normal(k, (A,), DTYPE))(keys))
            PAIRS.put(fowm_networks.sample_pair(key_pair, c.num_critics))

    def plan(
        self, obs: Array, first: bool, explores: bool, chosen: int, keys: tuple
    ) -> dict[str, Any]:
        """A plan.

        Args:
            first: whether it is an episode's first.
            chosen: which elite we chose.
            keys: of our search, and of our noise.
        """
        key_plan, key_noise = keys
        self.put_plan_draws(key_plan)
        if explores:
            NORMALS.put(jax.random.normal(key_noise, (A,), DTYPE))
        CHOSEN["index"] = chosen
        z = self.them.model.encode(tensor(obs)[None])
        told = self.them.plan(z, eval_mode=not explores, step=0, t0=first)
        NORMALS.done()
        PAIRS.done()
        mean, chances = self.them._prev_mean, CHOSEN["chances"]
        return dict(action=told, mean=mean, chances=chances)

    def worth(self, z: Array, plans: Array, noise: Array, pair: Array) -> dict:
        """What given plans are worth."""
        NORMALS.put(noise)
        PAIRS.put(pair)
        states = tensor(z)[None].repeat(len(plans), 1)
        found = self.them.estimate_value(states, tensor(np.swapaxes(plans, 0, 1)), H)
        return dict(worth=found[:, 0])


# --- replay


def replay_of(data: Transition, num_drawn: int) -> Any:
    """The original's own store of a dataset."""
    columns = dict(
        observations=data.obs,
        next_observations=data.next_obs,
        actions=data.action,
        rewards=data.reward,
        masks=data.discount,
        dones=data.last,
    )
    config = config_of(fowm.FOWMConfig(horizon=H), num_drawn)
    with contextlib.redirect_stdout(io.StringIO()):
        return HELPER.ReplayBuffer(config, columns)


class Replay:
    """Its store of a dataset, which draws the rows that ours has drawn."""

    def __init__(self, data: Transition, num_drawn: int):
        self.store = replay_of(data, num_drawn)

    def sample(self, index: np.ndarray) -> dict[str, Any]:
        """A draw of these rows, of windows the steps that count for a loss."""
        chances = {}

        def pick(total, size, p=None, replace=True):
            chances["chances"] = np.array(p)
            return index

        HELPER.np = Over(np, random=Over(np.random, choice=pick))
        drawn = self.store.sample()
        HELPER.np = np
        self.drawn = drawn[6]
        obs, next_obs, action, reward, mask, done, _, weight = map(as_numpy, drawn)
        counts = np.ones(done.shape[:2])  # as their `update` makes it
        for t in range(1, H):
            counts[t] = counts[t - 1] * ~done[t - 1, :, 0]
        parts = dict(next_obs=next_obs, action=action, reward=reward, mask=mask)
        found = {"chances": chances["chances"], "weights": weight, "obs": obs}
        found["counted steps"] = counts
        return found | {name: x * counts[..., None] for name, x in parts.items()}

    def update_priorities(self, error: np.ndarray) -> None:
        """By the TD errors of the rows that were drawn."""
        capped = np.minimum(error, 1e4).astype(np.float32)
        self.store.update_priorities(self.drawn, tensor(capped)[:, None])
