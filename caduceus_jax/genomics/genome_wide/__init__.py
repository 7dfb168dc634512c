"""Scores of whole genomes: kept in a store, looked up, and drawn from as a background."""
