from caduceus_jax.markdown import table


def test_a_table_line_by_line():
    assert table(["a", "b"], [["x|y", 1], ["z", 2.5]], numbers_from=1) == [
        "| a | b |",
        "| --- | ---: |",
        r"| x\|y | 1 |",
        "| z | 2.5 |",
    ]
    assert table(["a"], []) == ["| a |", "| --- |"]
