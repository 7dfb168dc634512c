import caduceus_jax as cj


def test_parameter_counts_smoke():
    assert cj.CaduceusConfig().d_inner == 512
