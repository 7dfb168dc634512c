"""Fine-tuned models on genomes: what variants change in their outputs, and tracks over regions."""
