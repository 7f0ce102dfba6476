"""Model families, a folder each, and the table that makes transformers know them."""
