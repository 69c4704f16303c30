"""HOW models improve: local training, strategies, partitions."""
