"""SMAC and PEARL once more, in the way of `by_hand`: every gradient written out."""

import by_hand
import jax
import numpy as np

from o2ojax.types import Batch, Transition


def flatten_time(data: Transition) -> Transition:
    """[G, B] as [G * B]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)


def seen(context, sees_next):
    columns = [context.obs, context.action, context.reward[..., None]]
    return np.concatenate(columns + [context.next_obs] * sees_next, -1)


class Posterior:
    """That of a context [G, C], and a latent by `noise` [G, Z]; goes back, too."""

    def __init__(self, params, context, sees_next, noise):
        x = seen(context, sees_next)
        self.shape = (*x.shape[:2], noise.shape[-1])  # [G, C, Z]
        self.layers = params["params"]["MLP_0"]
        out, self.inputs = by_hand.mlp(self.layers, x.reshape(-1, x.shape[-1]))
        mean, self.raw = np.split(out, 2, axis=1)
        self.means = mean.reshape(self.shape)
        self.p = (1 / np.maximum(np.log1p(np.exp(self.raw)), 1e-7)).reshape(self.shape)
        self.total = self.p.sum(1)
        self.mean = (self.means * self.p).sum(1) / self.total
        self.std = self.total**-0.5
        self.noise = noise
        self.z = self.mean + self.std * noise

    def kl(self):
        """From N(0, 1), [G, Z]."""
        return (self.mean**2 + self.std**2 - 1 - 2 * np.log(self.std)) / 2

    def back(self, by_z, kl_slope):
        """Slopes of the latent [G, Z], and of each KL, to the encoder's weights."""
        by_mean = by_z + kl_slope * self.mean
        by_std = by_z * self.noise + kl_slope * (self.std - 1 / self.std)
        by_sum = by_mean / self.total
        by_total = -by_mean * self.mean / self.total - by_std * self.total**-1.5 / 2
        by_p = by_sum[:, None] * self.means + by_total[:, None]
        by_mean_row = (by_sum[:, None] * self.p).reshape(self.raw.shape)
        by_var = (-by_p * self.p**2).reshape(self.raw.shape)
        by_raw = by_var / (1 + np.exp(-self.raw))
        slopes = np.hstack([by_mean_row, by_raw])
        grads, _ = by_hand.mlp_back(self.layers, self.inputs, slopes)
        return {"params": {"MLP_0": grads}}


def with_latent(obs, z):
    """Rows [G * B, O], a latent for each of the G tasks beside them."""
    return np.hstack([obs, np.repeat(z, len(obs) // len(z), axis=0)])


class Act:
    """tanh(mean + std * noise) of rows, and what it takes to go back."""

    def __init__(self, params, obs, noise):
        out, self.inputs = by_hand.mlp(params["params"]["MLP_0"], obs)
        self.layers = params["params"]["MLP_0"]
        self.mean, raw = np.split(out, 2, axis=1)
        self.std, self.noise = np.exp(np.clip(raw, -20, 2)), noise
        self.action = np.tanh(self.mean + self.std * noise)
        log_prob = -(noise**2) / 2 - np.log(self.std) - by_hand.LOG_2PI / 2
        self.log_prob = (log_prob - np.log(1 - self.action**2)).sum(1)

    def back(self, by_mean, by_log_std):
        slopes = np.hstack([by_mean, by_log_std])
        grads, _ = by_hand.mlp_back(self.layers, self.inputs, slopes)
        return {"params": {"MLP_0": grads}}


def task_step(adam, posterior, data, z_rows, config):
    """Encoder and decoder down mean (r' - r)^2 + w mean_g KL."""
    layers = adam.params["decoder"]["params"]["MLP_0"]
    told, inputs = by_hand.mlp(layers, np.hstack([data.obs, data.action, z_rows]))
    error = told[:, 0] - data.reward
    kl = posterior.kl().sum(1).mean()
    metrics = {
        "task_loss": (error**2).mean() + config.kl_weight * kl,
        "reward_error": (error**2).mean(),
        "kl": kl,
    }
    slopes = (2 * error / len(error))[:, None]
    decoder, by_input = by_hand.mlp_back(layers, inputs, slopes)
    num_tasks, size = posterior.z.shape
    by_z = by_input[:, -size:].reshape(num_tasks, -1, size).sum(1)
    grads = {
        "encoder": posterior.back(by_z, config.kl_weight / num_tasks),
        "decoder": {"params": {"MLP_0": decoder}},
    }
    return by_hand.step(adam, grads, config.lr), metrics


def smac(state, batch: Batch, config, noises, online):
    """`noises`: of z and the next z [G, Z], the next action and the own [G * B, A]."""
    for_z, for_next_z, for_next, for_own = noises
    data, rows = flatten_time(batch.data), batch.data.reward.size
    encoder = state["tasks"].params["encoder"]
    posterior = Posterior(encoder, batch.context, config.sees_next, for_z)
    next_z = posterior.mean + posterior.std * for_next_z
    here, there = (with_latent(obs, posterior.z) for obs in (data.obs, data.next_obs))

    tasks, metrics = task_step(
        state["tasks"], posterior, data, here[:, -posterior.z.shape[1] :], config
    )
    if online and config.labels == "decoder":
        tasks = state["tasks"]

    next_act = Act(state["actor"].params, with_latent(data.next_obs, next_z), for_next)
    next_q, _ = by_hand.critic(state["target_critic"], there, next_act.action)
    target = config.reward_scale * data.reward
    target = target + config.gamma * data.discount * next_q.min(0)
    q_params = state["critic"].params
    critic, told = by_hand.critic_step(
        state["critic"], data._replace(obs=here), np.ones(rows), target, config.lr
    )
    metrics |= told

    act = Act(state["actor"].params, here, for_own)
    q, _ = by_hand.critic(q_params, here, data.action)
    own_q, inputs = by_hand.critic(q_params, here, act.action)
    advantage = q.min(0) - own_q.min(0)
    powers = np.exp((advantage - advantage.max()) / config.temperature)
    weight = rows * powers / powers.sum()
    before = np.arctanh(np.clip(data.action, -1 + 1e-5, 1 - 1e-5))
    far = (before - act.mean) / act.std
    log_prob = -(far**2) / 2 - np.log(act.std) - by_hand.LOG_2PI / 2
    log_prob = (log_prob - np.log(1 - np.tanh(before) ** 2)).sum(1)
    pull = -weight[:, None] / rows
    by_mean, by_log_std = pull * far / act.std, pull * (far**2 - 1)
    loss = -(weight * log_prob).mean()
    if online:
        loss -= config.q_weight * own_q.min(0).mean()
        slope = by_hand.slope_by_action(q_params, inputs, data.action.shape[1])
        slope = slope[own_q.argmin(0), np.arange(rows)] * (1 - act.action**2)
        by_mean = by_mean - config.q_weight * slope / rows
        by_log_std = by_log_std - config.q_weight * slope * act.std * act.noise / rows
    actor = by_hand.step(state["actor"], act.back(by_mean, by_log_std), config.lr)
    metrics |= {"actor_loss": loss, "advantage": advantage.mean()}

    target_critic = by_hand.polyak_update(
        state["target_critic"], critic.params, config.target_rate
    )
    state = dict(tasks=tasks, actor=actor, critic=critic, target_critic=target_critic)
    return state, metrics


def pearl(state, batch: Batch, config, noises):
    """`noises`: of z [G, Z], of the next action and of the own [G * B, A]."""
    for_z, for_next, for_own = noises
    data, rows = flatten_time(batch.data), batch.data.reward.size
    params = state["critic"].params
    posterior = Posterior(params["encoder"], batch.context, config.sees_next, for_z)
    here, there = (with_latent(obs, posterior.z) for obs in (data.obs, data.next_obs))

    next_act = Act(state["actor"].params, there, for_next)
    next_q, _ = by_hand.critic(state["target_critic"], there, next_act.action)
    next_v = next_q.min(0) - config.temperature * next_act.log_prob
    target = config.reward_scale * data.reward + config.gamma * data.discount * next_v
    q, inputs = by_hand.critic(params["critic"], here, data.action)
    slopes = 2 * (q - target) / rows
    by_input = sum(
        by_hand.mlp_back(member["params"]["MLP_0"], inputs[e], slopes[e][:, None])[1]
        for e, member in enumerate(by_hand.members(params["critic"]))
    )
    num_tasks, size = posterior.z.shape
    first = data.obs.shape[1]
    by_z = by_input[:, first : first + size].reshape(num_tasks, -1, size).sum(1)
    grads = {
        "critic": by_hand.critic_back(params["critic"], inputs, slopes),
        "encoder": posterior.back(by_z, config.kl_weight),
    }
    critic = by_hand.step(state["critic"], grads, config.lr)
    metrics = {
        "critic_loss": ((q - target) ** 2).sum(0).mean(),
        "kl": posterior.kl().sum(),
        "q": q.mean(),
    }

    act = Act(state["actor"].params, here, for_own)
    own_q, inputs = by_hand.critic(params["critic"], here, act.action)
    slope = by_hand.slope_by_action(params["critic"], inputs, data.action.shape[1])
    slope = slope[own_q.argmin(0), np.arange(rows)] * (1 - act.action**2)
    alpha = config.temperature
    by_before = (2 * alpha * act.action - slope) / rows
    by_log_std = by_before * act.std * act.noise - alpha / rows
    actor = by_hand.step(state["actor"], act.back(by_before, by_log_std), config.lr)
    metrics |= {
        "actor_loss": (alpha * act.log_prob - own_q.min(0)).mean(),
        "entropy": -act.log_prob.mean(),
    }

    target_critic = by_hand.polyak_update(
        state["target_critic"], critic.params["critic"], config.target_rate
    )
    return dict(critic=critic, actor=actor, target_critic=target_critic), metrics
