"""Bytes to disk and back."""
