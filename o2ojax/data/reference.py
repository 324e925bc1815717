"""Reference returns for normalised scores."""

import numpy as np
from numpy.typing import ArrayLike

# Returns of a random and of an expert policy, from Fu et al., "D4RL: Datasets for
# Deep Data-Driven Reinforcement Learning" (2020), arxiv.org/abs/2004.07219. Our tasks
# are not numerically identical to D4RL's; these numbers only normalise.
REFERENCE: dict[str, tuple[float, float]] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "antmaze-umaze": (0.0, 1.0),
    "antmaze-medium": (0.0, 1.0),
    "antmaze-large": (0.0, 1.0),
}


def has_reference(env_name: str) -> bool:
    """Whether an environment has reference returns."""
    return env_name in REFERENCE


def score(env_name: str, returns: ArrayLike) -> np.ndarray:
    """D4RL's normalised score: 0 for a random policy, 100 for an expert.

    100 (R - R_random) / (R_expert - R_random)

    Args:
        env_name: the environment's name, as in its spec.
        returns: R, [...].
    Returns:
        Scores, float64 [...]; unscaled returns for an environment without reference.
    """
    returns = np.asarray(returns, np.float64)
    if not has_reference(env_name):
        return returns
    low, high = REFERENCE[env_name]
    return 100 * (returns - low) / (high - low)
