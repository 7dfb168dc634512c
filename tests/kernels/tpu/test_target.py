import types

import jax

from caduceus_jax.kernels.tpu import target


def test_a_named_tpu_the_one_at_hand_or_none(monkeypatch):
    assert target.kind() == ""
    with target.compiling_for("TPU v4"):
        assert target.kind() == "TPU v4"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    tpu = types.SimpleNamespace(device_kind="TPU v5 lite")
    monkeypatch.setattr(jax, "local_devices", lambda: [tpu])
    assert target.kind() == "TPU v5 lite"
