"""What the benchmarks found, as tables, pictures and one HTML page."""
