"""Benchmarks of training: the step on a GPU, the data on this machine."""
