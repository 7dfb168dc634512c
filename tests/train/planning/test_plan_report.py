from caduceus_jax.train.planning.plan_report import lines, share_of

REPORT = {
    "topology": "v5e:2x4",
    "devices": 8,
    "mesh": {"data": 2, "fsdp": 1, "sequence": 4, "tensor": 1},
    "windows": 2,
    "windows_per_group": 1,
    "tokens_per_window": 1024,
    "available_bytes": 2**34,
    "fits": False,
    "needed_bytes": None,
    "memory": None,
    "collectives": [],
    "per_device": {"scans": {"flops": 2e12, "exponentials": 3e9, "bytes": 4e9}},
    "predicted": None,
    "lower_seconds": 1.0,
    "compile_seconds": 2.0,
    "host_bytes": 2**30,
    "largest_windows_per_group": 0,
    "tried": [{"windows": 1, "fits": False, "needed": None, "compile_seconds": 2.0}],
    "divisions": [
        {"fsdp": 2, "sequence": 4, "tensor": 1, "microbatches": 1, "fits": True}
        | {"needed": 2**33, "sent": 3 * 2**20, "compile_seconds": 4.0}
    ],
}


def test_a_plan_that_does_not_fit_shows_what_was_tried():
    text = "\n".join(lines(REPORT))
    assert text.startswith("v5e:2x4: 8 devices, data 2 x sequence 4; 2 windows of 1,024 tokens")
    assert "does not fit: more than 16.00 GiB on each device" in text
    assert "| scans | 2 | 3 | 4 |" in text
    assert "| 1 | no | not said | 2 |" in text
    assert "| fsdp 2, sequence 4 | yes | 8.00 | 3 | 4 |" in text
    assert text.endswith("largest that fits: 0 windows per group of 4 devices")


def test_who_shares_a_window_is_named():
    assert share_of(REPORT) == "per group of 4 devices"
    assert share_of({"mesh": {"sequence": 1, "tensor": 1}}) == "per device"
