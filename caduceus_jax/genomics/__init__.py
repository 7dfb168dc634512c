"""Genomes, regions and variants: files in, embeddings and scores out.

`fasta` reads FASTA files whole, `genome` opens one for windows anywhere in it, `bed` and `vcf` read
regions and variants, `windows` places windows on a genome. `embed` and `score_variants` are the
commands of the same names. Positions are 0-based half-open everywhere but in a VCF file.
"""
