"""What comparisons with originals that have a copy of rlkit share."""

import sys
from typing import Any

import gymnasium
import numpy as np

from benchmarks.parity.theirs import Feed, stand_in
from benchmarks.parity.theirs.torch_side import layer, tensor, torch

NORMALS, STANDARD = Feed(), Feed()  # draws of `torch.normal`, and of `rsample`


def begin() -> None:
    """Old names of modules and of NumPy, modules that are not used, and our draws."""
    sys.modules["gym"] = gymnasium
    sys.modules["gym.spaces"] = gymnasium.spaces
    np.int, np.float, np.bool = int, float, bool
    stand_in("torchvision", "torchvision.models", "matplotlib", "matplotlib.pyplot")
    torch.normal = lambda loc, scale: loc + scale * tensor(NORMALS.take(loc.shape))
    torch.distributions.normal._standard_normal = lambda shape, dtype, device: tensor(
        STANDARD.take(shape)
    )


def mlp(module: Any) -> list:
    """All layers of one of rlkit's networks."""
    return [x for one in (*module.fcs, module.last_fc) for x in layer(one)]


def policy(module: Any) -> list:
    """The squashed policy: mean and log std are layers of their own."""
    return mlp(module) + layer(module.last_fc_log_std)


def batch_for_them(data: Any, **more: Any) -> dict[str, Any]:
    """Rows under rlkit's names."""
    return dict(
        observations=tensor(data.obs),
        actions=tensor(data.action),
        rewards=tensor(data.reward)[..., None],
        terminals=1 - tensor(data.discount)[..., None],
        next_observations=tensor(data.next_obs),
        **more,
    )


def flush_before_targets(pytorch_util: Any, flush: Any) -> None:
    """Takes the steps of `Deferred` before targets follow."""
    soft_update = pytorch_util.soft_update_from_to

    def update(*args):
        flush()
        soft_update(*args)

    pytorch_util.soft_update_from_to = update
