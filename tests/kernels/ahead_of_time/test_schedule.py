import pytest

from caduceus_jax.kernels.ahead_of_time.schedule import Schedule, parse_schedule, read_schedule

TEXT = """
     0   :  { vst [a] }
   0x1 LB: > { vld [b] }
   0x2   : > { }
   0x3 LB: >> { vld [c] }
   0x4   : > { %p1 vst [d] }
   0x5   : >> { sbr.rel }
   0x6 LB: >> { vld [e] }
   0x7 PF: >> { sbr.rel }
   0x8   : > { sbr.rel }
   0x9   :  { } /* exit bundle */
"""


def test_bundles_are_counted_by_loop():
    assert parse_schedule(TEXT) == Schedule(outside=3, loops=(3, 2))


def test_a_kernel_without_loops_of_its_own():
    text = "  0 : { }\n 0x1 LB: > { vld [a] }\n 0x2 : > { vst [b] }\n 0x3 : { } /* exit bundle */\n"
    assert parse_schedule(text) == Schedule(outside=2, loops=())


def test_a_schedule_is_read_once(tmp_path):
    (tmp_path / "1-selective_scan_forward.2-final_bundles.txt").write_text(TEXT)
    (tmp_path / "1-selective_scan_forward.2-other.txt").write_text("")
    assert read_schedule(tmp_path, "selective_scan_forward").loops == (3, 2)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="no schedule of selective_scan_forward"):
        read_schedule(tmp_path, "selective_scan_forward", patience=0.0)
