"""The MEGA model family: a moving average of every channel, then gated attention of one head.

Mega (arXiv 2209.10655). Parameter names and shapes are those of transformers 4's classes of the
same names, so checkpoints go both ways. `mra_plugin` offers the classes; nothing here is imported
until one of them is needed.
"""
