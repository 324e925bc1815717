"""Packaging. The versions that are known to work together are in requirements.lock."""

from setuptools import find_packages, setup

COMMANDS = find_packages(include=["experiments*"])

setup(
    name="o2ojax",
    version="0.1.0",
    author="The o2ojax developers",
    description="Offline-to-online reinforcement learning in JAX, many seeds at once.",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The commands stand in experiments/, and are installed inside the package.
    packages=find_packages(include=["o2ojax*"]) + [f"o2ojax.{x}" for x in COMMANDS],
    package_dir={f"o2ojax.{name}": name.replace(".", "/") for name in COMMANDS},
    package_data={
        "o2ojax": ["py.typed"],
        "o2ojax.data": ["shipped/*"],
        "o2ojax.envs": ["assets/*"],
        "o2ojax.envs.native": ["*.cc"],
        "o2ojax.experiments": ["*.sh", "*.o2o"],
    },
    entry_points={"console_scripts": ["o2ojax=o2ojax.experiments.command:console"]},
    install_requires=[
        "absl-py",
        "chex>=0.1.90",
        "distrax>=0.1.7",
        "flatbuffers>=24.3",  # policies are exported with it
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
        "robotics": ["gymnasium-robotics>=1.4"],
        "ogbench": ["ogbench>=1.2"],
        "dm-control": ["shimmy[dm-control]>=2.0", "dm-control>=1.0.50"],
        "sweep": ["ray>=2.40"],
        "dev": ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.9", "setuptools>=77"],
    },
)
