"""What comparisons with originals in PyTorch share."""

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.parity.harness import DTYPE
from benchmarks.parity.report import Weights


def _begin() -> types.ModuleType:
    """PyTorch on one thread, in the precision under test."""
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed; see benchmarks/parity/README.md")

    # Its optimisers import a compiler that takes half a minute, only to switch it off.
    compiler = types.ModuleType("torch._dynamo")
    compiler.disable = lambda function, *args, **kwargs: function
    compiler.graph_break = lambda *args, **kwargs: None
    sys.modules["torch._dynamo"] = torch._dynamo = compiler
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32 if DTYPE == np.float32 else torch.float64)
    return torch


torch = _begin()


def tensor(x: Any) -> Any:
    """A copy, as a tensor."""
    return torch.as_tensor(np.array(x))


def column(x: Any) -> Any:
    """[...] to a tensor [..., 1]."""
    return tensor(x)[..., None]


def layer(module: Any) -> list:
    """A linear layer's or a norm's weights."""
    return [module.weight, module.bias]


def named(module: Any, *names: str) -> list:
    """The weights of layers, by their names."""
    return [x for name in names for x in layer(getattr(module, name))]


def load(theirs: dict[str, list], ours: Weights) -> None:
    """Writes our weights into the original's."""
    for name, tensors in ours.items():
        for their, our in zip(theirs[name], tensors, strict=True):
            assert tuple(their.shape) == our.shape, (tuple(their.shape), our.shape)
            their.data.copy_(their.data.new_tensor(our))


@contextlib.contextmanager
def losses_told() -> Iterator[list[float]]:
    """A list of the losses whose `backward` is called, in order."""
    told: list[float] = []
    step = torch.Tensor.backward

    def backward(loss, *args, **kwargs):
        told.append(float(loss.detach()))
        return step(loss, *args, **kwargs)

    torch.Tensor.backward = backward
    try:
        yield told
    finally:
        torch.Tensor.backward = step


def adams() -> tuple[type, type, Callable[[], None]]:
    """Two Adams, for code that steps weights which a later `backward` still needs.

    PyTorch refuses that since 1.5.

    Returns:
        old: does what PyTorch did before: that backward meets the new weights.
        deferred: takes all steps together, once `flush` is called; so every gradient
            is that of the weights before the update.
        flush.
    """
    waiting = []

    def weights_of(optimiser):
        return [p for group in optimiser.param_groups for p in group["params"]]

    class Old(torch.optim.Adam):
        def step(self, closure=None):
            with contextlib.ExitStack() as stack:
                for p in weights_of(self):
                    keep = torch.autograd._unsafe_preserve_version_counter(p)
                    stack.enter_context(keep)
                super().step()

    class Deferred(torch.optim.Adam):
        def step(self, closure=None):
            kept = weights_of(self)
            grads = [None if p.grad is None else p.grad.clone() for p in kept]
            waiting.append((self, kept, grads))

        def now(self, kept, grads):
            for p, grad in zip(kept, grads, strict=True):
                p.grad = grad
            super().step()

    def flush():
        for optimiser, kept, grads in waiting:
            optimiser.now(kept, grads)
        waiting.clear()

    return Old, Deferred, flush
