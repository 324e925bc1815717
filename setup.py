"""Packaging. The versions that are known to work together are in requirements.lock."""

from setuptools import find_packages, setup

setup(
    name="o2ojax",
    version="0.1.0",
    description="Offline-to-online reinforcement learning in JAX, many seeds at once.",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["o2ojax*", "experiments*"]),
    package_data={"o2ojax.data": ["shipped/*"], "o2ojax.envs": ["assets/*"]},
    install_requires=[
        "absl-py",
        "chex>=0.1.90",
        "distrax>=0.1.7",
        "flax>=0.10",
        "gymnasium>=1.2",
        "h5py>=3.10",
        "imageio>=2.34",  # gymnasium's MuJoCo tasks import it
        "jax>=0.6",
        "matplotlib>=3.8",
        "ml-collections>=1.0",
        "mujoco>=3.11,<4",
        "mujoco-mjx>=3.11,<4",
        "numpy>=1.26",
        "optax>=0.2.4",
        "orbax-checkpoint>=0.11",
        "pillow>=10",
        "rich>=13",
        "scipy>=1.11",
        "tensorboardX>=2.6",
        "tfp-nightly",  # distrax on a new jax needs it
    ],
    extras_require={
        "cuda": ["jax[cuda12]"],
        "warp": ["warp-lang>=1.18"],
        "minari": ["minari[hdf5]>=0.5.3"],
        "sweep": ["ray>=2.40"],
        "dev": ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.9", "setuptools>=77"],
    },
)
