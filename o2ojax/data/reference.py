"""Returns that scores are measured by."""

import numpy as np
from numpy.typing import ArrayLike

# Returns of a random and of an expert policy, from Fu et al., "D4RL: Datasets for
# Deep Data-Driven Reinforcement Learning" (2020), arxiv.org/abs/2004.07219. Our tasks
# are not D4RL's to the last digit: these numbers only scale.
REFERENCE: dict[str, tuple[float, float]] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
}


def has_reference(env_name: str) -> bool:
    """Whether an environment's returns can be scaled."""
    return env_name in REFERENCE


def score(env_name: str, returns: ArrayLike) -> np.ndarray:
    """Scales returns so that random play earns 0 and an expert 100.

    100 (R - R_random) / (R_expert - R_random)

    Args:
        env_name: the environment's name, as in its spec.
        returns: R, [...].
    Returns:
        Scores, float64 [...]; the returns themselves where there is no reference.
    """
    returns = np.asarray(returns, np.float64)
    if not has_reference(env_name):
        return returns
    low, high = REFERENCE[env_name]
    return 100 * (returns - low) / (high - low)
