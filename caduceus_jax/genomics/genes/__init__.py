"""Genes: annotation files, the gene and region of each variant, and summaries of scores by them."""
