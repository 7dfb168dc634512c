"""The model, its losses, and its weights on disk."""
