"""Live environments of Gymnasium, in this process or in workers of their own.

What comes next is decided by an episode's seed and its actions so far, so these two are
what a run carries and saves (`envs.from_gymnasium`). The live environments here are a
cache: an episode that is not among them is played again from its seed.

But for `workers`, the modules need NumPy and Gymnasium alone. Worker processes load
them by their path, without o2ojax and without JAX.
"""
