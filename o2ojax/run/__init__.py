"""A run: from a config to trained agents in a directory."""
