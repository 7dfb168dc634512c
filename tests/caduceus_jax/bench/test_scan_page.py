from caduceus_jax.bench import scan_page

ABOUT = {
    "shape": {"batch": 1, "length": 10, "channels": 4, "state": 2},
    "dtype": "float32",
    "implementation": "chunked",
}
CASE = ABOUT | {
    "what": "scan",
    "pass": "forward",
    "median_ms": 2.0,
    "min_ms": 1.0,
    "max_ms": 4.0,
    "floor_ms": 0.5,
    "floor_percent": 25.0,
    "bound": "bytes",
    "compile_ms": 1500.0,
    "temporary_bytes": 2**29,
}
CHECK = ABOUT | {"reverse": True, "tolerance": 1e-5, "passed": False}
CHECK |= {"errors": {"y": 0.5, "d_u": float("nan")}}


def test_a_line_per_row():
    assert scan_page.line("cases", CASE) == (
        "float32  1 x 10 x 4 x 2 chunked scan forward: 2.00 (1.00 - 4.00) ms, 25.0 % of the floor"
    )
    # NaN is worse than any number.
    assert scan_page.line("checks", CHECK) == (
        "float32  1 x 10 x 4 x 2 chunked: largest error nan of d_u, FAILED"
    )
    assert scan_page.line("checks", ABOUT | {"error": "no"}).endswith("chunked: no")
    row = ABOUT | {"differences": {"y": 1e-3}}
    assert scan_page.line("comparisons", row).endswith("largest error 1.0e-03 of y")


def test_the_page_has_every_row():
    names = ("device", "driver", "jax", "python", "caduceus_jax", "began", "command")
    results = dict.fromkeys(names, "x") | {"title": "T", "finished": True, "seed": 3}
    results |= {"rates": {"bytes": 1e9}, "comparisons": [], "checks": [CHECK], "cases": [CASE]}
    page = scan_page.markdown(results)
    assert "Seed of the inputs: 3." in page and "Measured here: 1 GB/s copied." in page
    cells = "1 x 10 x 4 x 2 | float32 | scan, forward | chunked | 2.00 (1.00 - 4.00)"
    assert f"| {cells} | 0.500 (bytes) | 25.0 % | 1.5 | 0.50 |" in page
    assert "| right to left | chunked | nan of d_u | 1e-05 | FAILED |" in page
    assert "mamba_ssm" not in page
