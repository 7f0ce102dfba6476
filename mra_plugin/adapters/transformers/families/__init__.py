"""Families of transformers whose layers compute attention themselves, a file each."""
