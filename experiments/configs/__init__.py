"""One file per algorithm: `get_config(task)`, to be read beside the paper's table."""
