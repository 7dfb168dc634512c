"""Pretraining: `caduceus-jax pretrain`, step by step in `pretrain.py`."""
