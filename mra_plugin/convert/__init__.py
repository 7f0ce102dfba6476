"""Checkpoints made for longer documents, or turned into the MRA family."""
