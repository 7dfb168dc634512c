"""Compiles the kernels for devices that are not here, and counts what the compilers made."""
