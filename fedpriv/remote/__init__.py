"""The side of whoever asks: connections to workers."""
