"""The commands on genomes, regions and variants: files in, files out, by the verbs of genomics."""
