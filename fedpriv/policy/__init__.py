"""WHO may learn what: the owner's rules and the decision they lead to."""
