"""What surrounds the pretraining loop: checkpoints, metrics, time accounting and interruption."""
