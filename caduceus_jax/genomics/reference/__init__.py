"""Genomes, and where sequences and variants lie on them."""
