import dataclasses

import pytest
import yaml

from caduceus_jax import CaduceusConfig, UserError
from caduceus_jax.train.config import OptimizerConfig, PretrainConfig
from caduceus_jax.train.data.config import DataConfig
from caduceus_jax.train.recorded import check_same_run, read_config, save_config


def test_a_saved_config_is_a_recipe_and_the_same_run(tmp_path):
    config = PretrainConfig(
        model=CaduceusConfig(d_model=24, rcps=True),
        data=DataConfig(fasta=["a.fa", "b.fa"], stride=7),
        optimizer=OptimizerConfig(lr=3e-3),
    )
    path = tmp_path / "config.yaml"
    save_config(config, path)
    recipe = yaml.safe_load(path.read_text())
    assert recipe["model"]["d_model"] == 24
    assert recipe["data"]["fasta"] == ["a.fa", "b.fa"]
    assert recipe["optimizer"]["lr"] == 3e-3
    check_same_run(config, read_config(path), path)


def test_another_run_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "config.yaml"
    save_config(PretrainConfig(seed=1), path)
    with pytest.raises(UserError, match=r"seed \(there 1, now 2\).*--out"):
        check_same_run(PretrainConfig(seed=2), read_config(path), path)


@pytest.mark.parametrize(
    "free",
    [{"keep": 9, "out": "elsewhere"}, {"fsdp": 2, "sequence": 4, "tensor": 8, "remat": "blocks"}],
)
def test_settings_that_change_no_number_may_differ(tmp_path, free):
    path = tmp_path / "config.yaml"
    save_config(PretrainConfig(), path)
    check_same_run(PretrainConfig(**free), read_config(path), path)


def test_genomes_may_lie_elsewhere_and_be_read_by_others(tmp_path):
    path = tmp_path / "config.yaml"
    save_config(PretrainConfig(), path)
    check_same_run(
        PretrainConfig(data=DataConfig(fasta="b.fa", workers=2, threads=8)), read_config(path), path
    )


def test_remat_was_true_or_false():
    assert PretrainConfig(remat=True) == PretrainConfig(remat="blocks")
    assert PretrainConfig(remat=False) == PretrainConfig(remat="none") == PretrainConfig()


def test_a_setting_that_an_older_recording_lacks_had_its_default(tmp_path):
    path = tmp_path / "config.yaml"
    save_config(PretrainConfig(), path)
    older = yaml.safe_load(path.read_text())
    del older["dtype"], older["data"]["stride"]
    path.write_text(yaml.safe_dump(older))
    check_same_run(PretrainConfig(), read_config(path), path)
    with pytest.raises(UserError, match=r"dtype \(there float32, now bfloat16\)"):
        check_same_run(PretrainConfig(dtype="bfloat16"), read_config(path), path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PretrainConfig(steps=0), "steps is 0"),
        (lambda: PretrainConfig(seed=-1), "seed is -1"),
        (lambda: PretrainConfig(sequence=0), "sequence is 0"),
        (
            lambda: PretrainConfig(max_length=1000, sequence=3),
            "max_length is 1000, which 3 devices along the sequence cannot .* use 1002",
        ),
        (
            lambda: PretrainConfig(max_length=16, sequence=8),
            "max_length is 16, of which each of 8 .* has 2; model.d_conv 4 needs at least 3",
        ),
        (
            lambda: PretrainConfig(tensor=3),
            "tensor is 3, by which the 512 inner channels",
        ),
        (lambda: PretrainConfig(fsdp=3), "fsdp is 3, by which the 256 channels of model.d_model"),
        (lambda: PretrainConfig(max_skipped=0), "max_skipped is 0"),
        (lambda: PretrainConfig(skip_spikes=0.0), "skip_spikes is 0.0; it is above 0, or false"),
        (lambda: PretrainConfig(profile_steps="10"), "profile_steps is 10; it is first:end"),
        (lambda: PretrainConfig(profile_steps="0:3"), "profile_steps is 0:3"),
        (lambda: PretrainConfig(profile_steps="13:10"), "profile_steps is 13:10"),
        (lambda: OptimizerConfig(lr=0.0), "optimizer.lr is 0.0"),
        (lambda: OptimizerConfig(warmup_fraction=1.0), "optimizer.warmup_fraction is 1.0"),
    ],
)
def test_impossible_values_are_refused_by_name(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("rc_mode", ["none", "augment"])
def test_an_equivariant_model_takes_no_other_handling_of_strands(rc_mode):
    with pytest.raises(UserError, match="model.rcps reads both strands by construction"):
        PretrainConfig(model=CaduceusConfig(rcps=True), data=DataConfig(rc_mode=rc_mode))


def test_a_model_that_is_not_equivariant_is_not_called_so():
    with pytest.raises(UserError, match="the model is not"):
        PretrainConfig(model=CaduceusConfig(rcps=False))
    PretrainConfig(model=CaduceusConfig(rcps=False), data=DataConfig(rc_mode="augment"))


def test_spikes_are_six_deviations_unless_told_otherwise():
    sigmas = [PretrainConfig(skip_spikes=value).spike_sigma for value in (False, True, 8.5, 8)]
    assert sigmas == [None, 6.0, 8.5, 8]


def test_steps_to_trace_are_half_open():
    assert list(PretrainConfig(profile_steps="10:13").profiled) == [10, 11, 12]
    assert not PretrainConfig().profiled


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PretrainConfig().steps = 3  # pyright: ignore[reportAttributeAccessIssue]
