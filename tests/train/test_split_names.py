from caduceus_jax.train.split_names import SPLITS, split_of


def test_every_part_is_known_by_its_own_name_and_by_the_basenji_one():
    assert [split_of(name) for name in SPLITS] == ["train", "validation", "test"]
    assert split_of("valid") == "validation"
    assert split_of("dev") is None and split_of("") is None
    assert "dev" in SPLITS["validation"]
