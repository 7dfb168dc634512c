import pytest

from caduceus_jax import UserError
from caduceus_jax.train.data.config import DataConfig, as_list


def test_names_are_a_list_however_they_are_given():
    assert as_list("") == []
    assert as_list("chrM") == ["chrM"]
    assert as_list(["chrI", "chrII"]) == ["chrI", "chrII"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(mask_probability=1.5), "data.mask_probability is 1.5"),
        (lambda: DataConfig(validation_fraction=0.0), "data.validation_fraction is 0.0"),
        (lambda: DataConfig(soft_mask_weight=-0.1), "data.soft_mask_weight is -0.1"),
        (lambda: DataConfig(stride=0), "data.stride is 0"),
        (lambda: DataConfig(workers=-1), "data.workers is -1"),
        (lambda: DataConfig(interval_length=0), "data.interval_length is 0"),
        (
            lambda: DataConfig(fasta=["a.fa", "b.fa"], weights=[1.0]),
            "data.weights has 1 numbers, and there are 2 genomes",
        ),
        (
            lambda: DataConfig(fasta="a.fa", weights=[0.0]),
            r"data.weights is \[0.0\]; each is above",
        ),
        (
            lambda: DataConfig(intervals="a.bed", test_contigs="chrI"),
            "data.intervals says what is held out, so",
        ),
        (
            lambda: DataConfig(validation_contigs="chrI", test_contigs=["chrI"]),
            "chrI is both in",
        ),
    ],
)
def test_impossible_values_are_refused_by_name(make, message):
    with pytest.raises(UserError, match=message):
        make()
