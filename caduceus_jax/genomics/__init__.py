"""Genomes, regions and variants: files in, embeddings, scores, tracks and pictures out.

The commands are `embed`, `score_variants`, `likelihood` and `mutagenesis`: in each, the function of
that name is the command line, and another one takes loaded objects and returns a table:
`embed.embeddings`, `score_variants.scores`, `likelihood.probabilities`, `mutagenesis.scores`.

Read: `fasta` whole, `genome` for windows anywhere in it, `bed`, `vcf`, `variant_tables`, `regions`.
Place: `windows` on a genome, `locate` and `alleles` for variants, `haplotypes` for what a variant
makes of the genome, `tiles` of long sequences. Compute: `every_base`, `variant_scores`. Write:
`output`, `base_files`, `bigwig`, `embedding_files`, `pictures`; `journal` keeps what is computed.

Positions are 0-based half-open everywhere but in VCF files and in what is printed as chrom:pos.
"""
