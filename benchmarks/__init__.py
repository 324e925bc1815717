"""What is measured: speeds, memory, and whether agents learn."""
