"""All around the pretraining loop: checkpoints, metrics, time accounting and interruption."""
