"""Simulated lesions and brains, for the demo, the tests and the benchmarks."""
