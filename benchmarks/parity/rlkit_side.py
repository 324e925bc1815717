"""What comparisons with originals that have a copy of rlkit share."""

import sys
from typing import Any

import gymnasium
import numpy as np

from benchmarks.parity.harness import Feed, stand_in
from benchmarks.parity.torch_side import columns, layer, tensor, torch

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


def mlp(params: Any, module: Any) -> list:
    """All layers of one of rlkit's networks."""
    p = params["params"]["MLP_0"]
    modules = [*module.fcs, module.last_fc]
    return [
        pair for at, one in enumerate(modules) for pair in layer(p[f"Dense_{at}"], one)
    ]


def policy(params: Any, module: Any) -> list:
    """The squashed policy: mean and log std are layers of their own there."""
    p = params["params"]["MLP_0"]
    pairs = [
        pair
        for at, one in enumerate(module.fcs)
        for pair in layer(p[f"Dense_{at}"], one)
    ]
    last = p[f"Dense_{len(module.fcs)}"]
    num = len(last["bias"]) // 2
    pairs += layer(columns(last, slice(num)), module.last_fc)
    return pairs + layer(columns(last, slice(num, None)), module.last_fc_log_std)


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
