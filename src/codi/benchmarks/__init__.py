"""What networks cost on a machine: operations on shapes alone, seconds, and the machine's limits."""
