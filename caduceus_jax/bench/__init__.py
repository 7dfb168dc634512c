"""`caduceus-jax bench`: the kernels and the model timed, beside what the machine can do."""
