"""The command line: `caduceus-jax VERB`."""
