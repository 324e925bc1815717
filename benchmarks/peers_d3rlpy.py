"""d3rlpy's side of `benchmarks.peers`: what its `fit` does, logging left out.

Runs in the peers' environment. Its argument is a job, in JSON; see `peers.LEARNERS`.
"""

import json
import sys
import timeit
from collections.abc import Callable
from typing import Any

import d3rlpy
import numpy as np
import torch
from d3rlpy.algos import QLearningAlgoBase
from d3rlpy.dataset import MDPDataset
from d3rlpy.models.encoders import VectorEncoderFactory

from benchmarks.peers_protocol import serve

ALGORITHMS = {  # the config of each, and whose widths it has
    "iql": (d3rlpy.algos.IQLConfig, ("actor", "critic", "value")),
    "awac": (d3rlpy.algos.AWACConfig, ("actor", "critic")),
    "cql": (d3rlpy.algos.CQLConfig, ("actor", "critic")),
    "bcq": (d3rlpy.algos.BCQConfig, ("actor", "critic", "imitator")),
    "td3_bc": (d3rlpy.algos.TD3PlusBCConfig, ("actor", "critic")),
    "sac": (d3rlpy.algos.SACConfig, ("actor", "critic")),
}


def build(job: dict[str, Any]) -> tuple[dict[str, Any], QLearningAlgoBase]:
    """The settings asked for, and an algorithm that has them and its defaults else."""
    make, networks = ALGORITHMS[job["algorithm"]]
    settings = {
        "batch_size": job["batch"],
        "n_critics": job["num_critics"],
        **job["settings"],
    }
    encoders = {
        f"{name}_encoder_factory": VectorEncoderFactory(list(job["widths"]))
        for name in networks
    }
    algorithm = make(**settings, **encoders).create(device=False)
    return settings | dict.fromkeys(encoders, job["widths"]), algorithm


def choose_threads(work: Callable[[], Any], most: int) -> None:
    """Gives PyTorch 1, 2, 4, ... or `most` threads, with which the work is fastest.

    Small products gain little from many threads, and where anything else runs, threads
    that wait for each other can take a hundred times as long as one alone.
    """
    seconds = {}
    for num in {2**power for power in range(most.bit_length())} | {most}:
        torch.set_num_threads(num)
        work()
        seconds[num] = timeit.timeit(work, number=5)
    torch.set_num_threads(min(seconds, key=seconds.get))


def prepare(job: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], Any]]:
    """What to know of d3rlpy, and its work: a batch from its store, and an update."""
    dataset = MDPDataset(**np.load(job["data"]))
    settings, algorithm = build(job)
    info = dataset.dataset_info
    [shape] = info.observation_signature.shape
    algorithm.create_impl(shape, info.action_size)

    def work():
        algorithm.update(dataset.sample_transition_batch(job["batch"]))

    choose_threads(work, job["threads"])
    packages = d3rlpy, torch, np
    return {
        "versions": {package.__name__: package.__version__ for package in packages},
        "threads": torch.get_num_threads(),
        "transitions": dataset.transition_count,
        "settings": settings,
    }, work


if __name__ == "__main__":
    serve(lambda: prepare(json.loads(sys.argv[1])))
