"""The Nyströmformer family: transformers' classes, for any length, mask and data type.

Parameter names and shapes are those of transformers' classes of the same names, so checkpoints go
both ways. `mra_plugin` offers the classes; nothing here is imported until one of them is needed.
"""
