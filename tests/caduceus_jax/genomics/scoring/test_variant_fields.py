from caduceus_jax.genomics.scoring.variant_fields import (
    combined,
    declarations,
    fields_of,
    haplotypes_of,
    quantiles_of,
)


def test_each_score_has_a_field_and_so_have_its_quantile_and_its_haplotypes():
    fields = fields_of("embedding", None)
    assert {name: key for name, (key, _) in fields.items()} == {
        "l2": "CADUCEUS_L2",
        "cosine": "CADUCEUS_COSINE",
    }
    assert quantiles_of(fields)["l2_quantile"] == (
        "CADUCEUS_L2_QUANTILE",
        "Share of random variants of the same kind whose CADUCEUS_L2 is lower",
    )
    first, second = list(haplotypes_of(fields_of("llr", None)).items())
    assert first[0] == "llr_haplotype_1" and first[1][1].endswith(", of haplotype 1")
    assert (second[0], second[1][0]) == ("llr_haplotype_2", "CADUCEUS_LLR_HAPLOTYPE_2")


def test_fields_are_declared_per_alt():
    found = declarations("llr", fields_of("llr", None))
    assert [*found] == ["CADUCEUS_LLR", "CADUCEUS_STATUS", "CADUCEUS_STATUS_LLR"]
    assert found["CADUCEUS_LLR"].startswith("Number=A,Type=Float,Description=")
    assert found["CADUCEUS_STATUS_LLR"] == (
        'Number=A,Type=String,Description="For each ALT: ok if mode llr has a score, '
        'otherwise why not"'
    )


def test_a_status_is_ok_where_any_mode_has_a_score():
    there = {"CADUCEUS_STATUS_LLR": "indel,ok", "CADUCEUS_STATUS_EMBEDDING": "ok"}
    new = {"CADUCEUS_STATUS": "ok,too_long", "CADUCEUS_STATUS_PLL": "ok,too_long"}
    # Statuses of another number of ALTs belong to another record, and do not count.
    assert combined(there, new, "pll") == new | {"CADUCEUS_STATUS": "ok,ok"}
    # Nor do those of an earlier run in the same mode.
    assert combined({"CADUCEUS_STATUS_PLL": "ok,ok"}, new, "pll") == new
