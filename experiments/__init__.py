"""What runs rarely and prints tables: benchmarks and the paper's experiments."""
