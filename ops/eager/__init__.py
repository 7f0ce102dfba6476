"""MRA attention in plain PyTorch: fast on a CPU, right on any device."""
