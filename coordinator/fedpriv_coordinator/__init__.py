"""The half that aggregates."""
