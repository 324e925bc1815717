"""Devices and processes: where the members of a run are trained."""
