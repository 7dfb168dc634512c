"""Data: from FASTA files to batches for the masked language model."""
