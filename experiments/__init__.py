"""The command line: run, collect, report, and the configs."""
