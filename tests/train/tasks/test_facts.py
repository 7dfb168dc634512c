from caduceus_jax.train.tasks.facts import GENOMIC_BENCHMARKS, NUCLEOTIDE_TRANSFORMER


def test_the_published_tasks_are_complete():
    assert (len(GENOMIC_BENCHMARKS), len(NUCLEOTIDE_TRANSFORMER)) == (8, 18)
    for task in GENOMIC_BENCHMARKS.values():
        assert task.metric == "accuracy" and task.batch_size == (256, 256)
        assert {"CNN", "Caduceus-Ph", "Caduceus-PS"} < set(task.scores)
    for name, task in NUCLEOTIDE_TRANSFORMER.items():
        expected = "mcc" if name.startswith(("H", "enh")) else "f1"
        expected = "accuracy" if name == "splice_sites_all" else expected
        assert task.metric == expected
        assert all(0 < mean < 1 for mean, _ in task.scores.values())


def test_figures_of_the_paper():
    regulatory = GENOMIC_BENCHMARKS["human_ensembl_regulatory"]
    assert regulatory.classes == ("enhancer", "ocr", "promoter") and regulatory.max_length == 512
    assert regulatory.scores["Caduceus-PS"] == (0.873, 0.007)
    assert regulatory.lr == (2e-3, 1e-3)
    h3 = NUCLEOTIDE_TRANSFORMER["H3"]
    assert h3.scores["Caduceus-Ph"] == (0.815, 0.048) and h3.batch_size == (128, 128)
    assert len(NUCLEOTIDE_TRANSFORMER["enhancers_types"].classes) == 3
