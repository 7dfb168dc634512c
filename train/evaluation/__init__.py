"""Published benchmarks: fine-tuned tasks, causal eQTLs and masked bases, with their reports."""
