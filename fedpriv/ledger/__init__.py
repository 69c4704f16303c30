"""WHAT HAPPENED, provably: entries, Merkle trees, checkpoints (pure)."""
