"""Streams: what happens to optimizations, told as it happens."""
