"""HOW MUCH leaks: the owner's budget, and what each release takes from it."""
