"""The version, in one place, importable without importing JAX."""

__version__ = "0.1.0"
