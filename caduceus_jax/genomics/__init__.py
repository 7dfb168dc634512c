"""Genomes, regions and variants: files in, embeddings, scores, tracks and pictures out.

The verbs are `embed`, `predict`, `score_variants`, `likelihood`, `mutagenesis` and `attribute`,
each in the file of its name: functions of a model that return a table. The commands of the same
names call them.

`options` has their options, `interval` and `variant` the values they take, `status` what can become
of a row, `run` how work is done block by block. `files` reads and writes the field's formats,
`reference` finds places on genomes, `scoring` computes.

Positions are 0-based half-open everywhere but in VCF files, in the column `pos` of tables, and in
texts such as chr1:101-200.
"""
