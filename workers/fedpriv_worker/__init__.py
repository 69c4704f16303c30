"""The half that a data owner runs."""
