"""Any registered attention in transformers' encoders, by one flag or on a live model."""
