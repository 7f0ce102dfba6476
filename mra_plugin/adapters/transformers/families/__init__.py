"""Families of transformers whose layers attend by themselves, a file and a row of `table` each."""
