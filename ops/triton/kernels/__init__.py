"""The Triton kernels, in files named like the stages that launch them."""
