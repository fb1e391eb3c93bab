"""What networks cost on a machine: operations on shapes, seconds, and the machine's limits."""
