// Scores a VCF in pieces, so that a cluster can work on many of them at a time.
//
//   nextflow run docs/workflows/main.nf --vcf calls.vcf.gz --genome genome.fa \
//       --model caduceus-ps-131k --out results
//
// Further settings: --pieces 8 and --options '--context-length 511'. With a container:
// -with-docker caduceus-jax or -with-apptainer caduceus-jax.sif.

params.vcf = null
params.genome = null
params.model = 'caduceus-ps-131k'
params.pieces = 8
params.options = ''
params.out = 'results'

process SPLIT {
    input:
    path vcf

    output:
    path 'piece-*.vcf'

    script:
    """
    case ${vcf} in *gz) gzip -dc ${vcf} > all.txt ;; *) cp ${vcf} all.txt ;; esac
    grep '^#' all.txt > header.txt
    grep -v '^#' all.txt > records.txt || true
    split --numeric-suffixes=1 --suffix-length=4 --number=l/${params.pieces} records.txt records-
    for part in records-*; do
        cat header.txt \$part > piece-\${part#records-}.vcf
    done
    """
}

process SCORE {
    tag "${vcf.simpleName}"
    errorStrategy 'retry'
    maxRetries 2

    input:
    path vcf
    path genome
    val model

    output:
    path "${vcf.simpleName}.scored.vcf"

    script:
    """
    caduceus-jax score-variants ${model} ${vcf} --genome ${genome} \
        --out ${vcf.simpleName}.scored.vcf ${params.options}
    """
}

process GATHER {
    publishDir params.out, mode: 'copy'

    input:
    path pieces

    output:
    path 'scored.vcf'

    script:
    """
    grep '^#' piece-0001.scored.vcf > scored.vcf
    for piece in \$(ls piece-*.scored.vcf | sort); do
        grep -v '^#' \$piece >> scored.vcf || true
    done
    """
}

workflow {
    if (!params.vcf || !params.genome) {
        error 'pass --vcf and --genome'
    }
    pieces = SPLIT(file(params.vcf, checkIfExists: true)).flatten()
    scored = SCORE(pieces, file(params.genome, checkIfExists: true), params.model)
    GATHER(scored.collect())
}
