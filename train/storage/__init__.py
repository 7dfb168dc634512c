"""Runs and genomes in object stores."""
