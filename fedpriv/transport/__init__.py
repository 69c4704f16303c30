"""Bytes to peers and back."""

import os

# Read by gRPC when it is first imported, by whichever module of this package does so first.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes to stderr; what matters is raised by us
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # child processes are spawned, never forked
