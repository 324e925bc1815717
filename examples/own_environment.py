"""An environment of your own, from a log to a policy in one file.

    python examples/own_environment.py [WORKDIR]

A puck on a table is pushed to a goal. Its observations are a dict, its actions are
forces in [-2, 2] N, an episode earns 1 where it succeeds, and ends there. The script
logs 5,000 steps of a clumsy controller, trains on them, goes on in the environment,
plays the policy, and exports it.

The command line trains in it, too:

    python -m experiments.run --config.env=examples/own_environment.py:Puck \
        --config=experiments/configs/iql.py --config.dataset=puck.npz ...
"""

import sys
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

import o2ojax

LIMIT = 60  # steps of an episode
KEYS = ("position", "velocity", "goal")  # as the log has them, side by side


class Puck(gymnasium.Env):
    """Seen: where the puck is, how fast, and where to. Done: a force, in N."""

    def __init__(self, friction: float = 1.0):
        self.friction = friction
        box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict(
            {"position": box, "velocity": box, "goal": box}
        )
        self.action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Puts the puck and the goal somewhere."""
        super().reset(seed=seed)
        self.position, self.velocity = self.np_random.uniform(-1, 1, (2, 2))
        self.goal = self.np_random.uniform(-1, 1, 2)
        return self.seen(), {}

    def step(self, action):
        """Pushes for 0.1 s."""
        force = np.float64(action) - self.friction * self.velocity
        self.velocity = self.velocity + 0.1 * force
        self.position = self.position + 0.1 * self.velocity
        there = bool(np.linalg.norm(self.position - self.goal) < 0.15)
        return self.seen(), float(there), there, False, {"success": there}

    def seen(self):
        """The observation."""
        return {
            "position": self.position.copy(),
            "velocity": self.velocity.copy(),
            "goal": self.goal.copy(),
        }


gymnasium.register("Puck-v0", entry_point=Puck, max_episode_steps=LIMIT)


def log(path: Path, num_steps: int = 5_000) -> None:
    """Writes what a controller does that pushes roughly towards the goal."""
    env, draw = gymnasium.make("Puck-v0"), np.random.default_rng(0)
    names = "observations actions rewards terminals timeouts next_observations".split()
    columns = {name: [] for name in names}
    obs, _ = env.reset(seed=0)
    for _ in range(num_steps):
        wanted = 2 * (obs["goal"] - obs["position"]) - obs["velocity"]
        action = np.clip(wanted + draw.normal(0, 1.5, 2), -2, 2)
        following, reward, ended, cut, _ = env.step(np.float32(action))
        row = joined(obs), action, reward, ended, cut, joined(following)
        for name, value in zip(names, row, strict=True):
            columns[name].append(value)
        obs = env.reset()[0] if ended or cut else following
    np.savez_compressed(path, **{name: np.array(x) for name, x in columns.items()})


def joined(obs: dict) -> np.ndarray:
    """A dict of observations as the row of a log."""
    return np.concatenate([obs[name] for name in KEYS])


def train(folder: Path, **fields) -> o2ojax.Trained:
    """IQL, offline on the log and then in the environment, two seeds at once."""
    return o2ojax.train(
        "iql",
        env=f"{__file__}:Puck",
        dataset=folder / "puck.npz",
        seeds=2,
        workdir=folder / "run",
        **{
            "horizon": LIMIT,
            "env_keys": KEYS,
            "agent.widths": (64, 64),
            "offline.updates": 4_000,
            "online.steps": 3_000,
            "eval.every": 1_000,
            "eval.episodes": 20,
            "checkpoint.every": 1_000,
        }
        | fields,
    )


def play(policy, num_episodes: int = 50) -> float:
    """The share of episodes that end in success."""
    env, done = gymnasium.make("Puck-v0"), 0
    for episode in range(num_episodes):
        obs, _ = env.reset(seed=episode)
        state, over = policy.start(seed=episode), False
        while not over:
            action, state = policy.act(obs, state)
            following, reward, ended, cut, info = env.step(action)
            over = ended or cut
            state = policy.observe(state, obs, action, reward, following, over)
            obs = following
        done += info["success"]
    return done / num_episodes


def main(folder: Path) -> None:
    """Logs, trains, plays and exports."""
    folder.mkdir(parents=True, exist_ok=True)
    log(folder / "puck.npz")
    run = train(folder)
    print(run.table())
    policy = run.policy()
    print(f"success in {play(policy):.0%} of 50 new episodes")
    print(f"exported to {policy.export(folder / 'puck.o2o')}")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["runs/puck"]))
