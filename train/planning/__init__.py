"""What a pretraining needs on other devices: compiled, counted and bounded, without them."""
