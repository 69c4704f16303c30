"""Sums without their terms: what workers send adds up to their total, and shows nothing else to whoever adds."""
