"""Facts about the published classification tasks: classes, lengths, scores, numbers.

Scores are those of Schiff et al. 2024: table 1 (Genomic Benchmarks, top-1 accuracy, mean of 5
seeds, +- largest less smallest) and table 2 (Nucleotide Transformer tasks, 10 seeds, the same).
"""

from typing import NamedTuple

Score = tuple[float, float | None]  # mean, and what the paper gives after its +-, if known


class PublishedTask(NamedTuple):
    """Describes a published task.

    Args:
        classes: names of the labels 0, 1, ..., in this order everywhere.
        metric: the score that is published.
        max_length: tokens of the longest sequence that is read.
        scores: published scores, by model.
        lr: learning rates that the paper chose for Caduceus-Ph and Caduceus-PS.
        batch_size: batch sizes for Caduceus-Ph and Caduceus-PS, where the paper gives them.
    """

    classes: tuple[str, ...]
    metric: str
    max_length: int
    scores: dict[str, Score]
    lr: tuple[float, float] = (1e-3, 1e-3)
    batch_size: tuple[int, int] | None = None


_MODELS_1 = ("CNN", "HyenaDNA", "Mamba", "Caduceus w/o equivariance", "Caduceus-Ph", "Caduceus-PS")
_MODELS_2 = ("Enformer", "DNABERT-2", "NT-v2 500M", "HyenaDNA", "Caduceus-Ph", "Caduceus-PS")
_TWO = ("negative", "positive")


def _scores(models: tuple[str, ...], *scores: float | Score) -> dict[str, Score]:
    pairs = (score if isinstance(score, tuple) else (score, None) for score in scores)
    return dict(zip(models, pairs, strict=True))


def _benchmark(
    classes: tuple[str, ...], length: int, lr: tuple[float, float], *scores: float | Score
) -> PublishedTask:
    return PublishedTask(classes, "accuracy", length, _scores(_MODELS_1, *scores), lr, (256, 256))


GENOMIC_BENCHMARKS = {
    "dummy_mouse_enhancers_ensembl": _benchmark(
        *(_TWO, 1024, (2e-3, 2e-3)),
        *((0.715, 0.087), (0.780, 0.025), (0.743, 0.054)),
        *((0.770, 0.058), (0.754, 0.074), (0.793, 0.058)),
    ),
    "demo_coding_vs_intergenomic_seqs": _benchmark(
        *(("coding_seqs", "intergenomic_seqs"), 200, (2e-3, 1e-3)),
        *(0.892, 0.904, 0.904, 0.908, (0.915, 0.003), (0.910, 0.003)),
    ),
    "demo_human_or_worm": _benchmark(
        *(("human", "worm"), 200, (2e-3, 1e-3)),
        *(0.942, 0.964, 0.967, 0.970, (0.973, 0.001), (0.968, 0.002)),
    ),
    "human_enhancers_cohn": _benchmark(
        *(_TWO, 500, (1e-3, 2e-3)),
        *(0.702, 0.729, 0.732, 0.741, (0.747, 0.004), (0.745, 0.007)),
    ),
    "human_enhancers_ensembl": _benchmark(
        *(_TWO, 512, (1e-3, 1e-3)),
        *(0.744, 0.849, 0.862, 0.883, (0.893, 0.008), (0.900, 0.006)),
    ),
    "human_ensembl_regulatory": _benchmark(
        *(("enhancer", "ocr", "promoter"), 512, (2e-3, 1e-3)),
        *(0.872, 0.869, 0.814, 0.871, (0.872, 0.011), (0.873, 0.007)),
    ),
    "human_ocr_ensembl": _benchmark(
        *(_TWO, 512, (2e-3, 2e-3)),
        *(0.698, 0.783, 0.815, 0.818, (0.828, 0.006), (0.818, 0.006)),
    ),
    "human_nontata_promoters": _benchmark(
        *(_TWO, 251, (2e-3, 2e-3)),
        *(0.861, 0.944, 0.933, 0.933, (0.946, 0.007), (0.945, 0.010)),
    ),
}


def _transformer(
    metric: str,
    length: int,
    *scores: float | Score,
    classes: int = 2,
    lr: tuple[float, float] = (1e-3, 1e-3),
    batch_size: tuple[int, int] | None = None,
) -> PublishedTask:
    names = tuple(map(str, range(classes)))
    return PublishedTask(names, metric, length, _scores(_MODELS_2, *scores), lr, batch_size)


# The first version of these tasks, whose histone marks are of yeast; the revised ones are others.
NUCLEOTIDE_TRANSFORMER = {
    "H3": _transformer(
        *("mcc", 500, 0.719, 0.785, 0.784, 0.779, (0.815, 0.048), (0.799, 0.029)),
        batch_size=(128, 128),
    ),
    "H3K14ac": _transformer("mcc", 500, 0.288, 0.516, 0.551, 0.612, 0.631, 0.541),
    "H3K36me3": _transformer("mcc", 500, 0.344, 0.591, 0.625, 0.613, 0.601, 0.609),
    "H3K4me1": _transformer("mcc", 500, 0.291, 0.511, 0.550, 0.512, 0.523, 0.488),
    "H3K4me2": _transformer("mcc", 500, 0.211, 0.336, 0.319, 0.455, 0.487, 0.388),
    "H3K4me3": _transformer("mcc", 500, 0.158, 0.352, 0.410, 0.549, 0.544, 0.440),
    "H3K79me3": _transformer("mcc", 500, 0.496, 0.613, 0.626, 0.672, 0.697, 0.676),
    "H3K9ac": _transformer("mcc", 500, 0.420, 0.542, 0.562, 0.581, 0.622, 0.604),
    "H4": _transformer("mcc", 500, 0.732, 0.796, 0.799, 0.763, 0.811, 0.789),
    "H4ac": _transformer("mcc", 500, 0.273, 0.463, 0.495, 0.564, 0.621, 0.525),
    "enhancers": _transformer(
        *("mcc", 200, 0.451, 0.516, 0.548, 0.517, (0.546, 0.073), (0.491, 0.066)),
        batch_size=(512, 512),
    ),
    "enhancers_types": _transformer(
        *("mcc", 200, 0.309, 0.423, 0.424, 0.386, 0.439, 0.416), classes=3, lr=(1e-3, 2e-3)
    ),
    "promoter_all": _transformer("f1", 300, 0.954, 0.971, 0.976, 0.960, 0.970, 0.967),
    "promoter_no_tata": _transformer("f1", 300, 0.955, 0.972, 0.976, 0.959, 0.969, 0.968),
    "promoter_tata": _transformer("f1", 300, 0.960, 0.955, 0.966, 0.944, 0.953, 0.957),
    "splice_sites_all": _transformer(
        *("accuracy", 400, 0.848, 0.939, 0.983, 0.956, (0.940, 0.027), 0.927),
        classes=3,
        batch_size=(512, 512),
    ),
    "splice_sites_acceptors": _transformer(
        *("f1", 600, 0.914, 0.975, 0.981, 0.958, (0.937, 0.033), (0.936, 0.077)),
        batch_size=(128, 128),
    ),
    "splice_sites_donors": _transformer(
        "f1", 600, 0.906, 0.963, 0.985, 0.949, 0.948, (0.874, 0.289)
    ),
}
