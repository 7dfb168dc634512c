from caduceus_jax.kernels.tpu import target
from caduceus_jax.kernels.tpu.plan import default_block, default_chunk


def test_blocks_are_as_wide_as_divides_the_channels():
    blocks = {n: default_block(n) for n in (128, 256, 384, 512, 640, 768, 1024)}
    assert blocks == {128: 128, 256: 256, 384: 384, 512: 512, 640: 128, 768: 384, 1024: 512}


def test_chunks_are_no_longer_than_the_sequence_in_whole_lanes():
    assert [default_chunk(n) for n in (1, 128, 129, 256, 131_072)] == [128, 128, 256, 256, 256]


def test_a_v4_has_a_small_fast_memory():
    assert default_chunk(1000, state=40) == 256
    with target.compiling_for("TPU v4"):
        assert default_block(1024) == default_block(512) == 256
        assert default_block(384) == 128
        assert default_chunk(1000, state=16) == 256
        assert default_chunk(1000, state=32) == 128
