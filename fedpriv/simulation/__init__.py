"""Many workers in one process."""
