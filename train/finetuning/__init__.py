"""Fine-tuning: labelled sequences, what of a model is trained, one step, and scores."""
