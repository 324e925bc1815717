"""Parity: our updates beside those of the originals, on the same numbers.

Each module imports the original's code from a folder of the user's, gives it our
weights, our batches and our random draws, steps both sides, and measures how far apart
their loss terms and weights are. Nothing of an original is copied here. README.md says
what to fetch, how to run it, and how to read it.
"""
