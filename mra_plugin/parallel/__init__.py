"""Attention over sequences that are split among processes."""
