"""Bytes to peers and back."""
