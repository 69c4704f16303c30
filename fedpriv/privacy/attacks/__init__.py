"""Attacks on what a worker released, as pure functions: what protection is measured against."""
