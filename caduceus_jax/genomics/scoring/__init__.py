"""Scores: per base, per variant, and over long sequences in tiles."""
