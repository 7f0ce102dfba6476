"""Any registered attention in the diffusion transformers of diffusers."""
