"""Tables of commands, where they are read and where they are kept."""

from qdgs_jax.cli import console


def test_tables_are_as_wide_as_they_are_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    header = ["data set", *(f"a group of people {number}" for number in range(12))]
    console.show_table("Shares", header, [["cma_maega", *(["12.5"] * 12)]])
    shown = capsys.readouterr().out
    assert all(name in shown for name in header)
    assert len(shown.splitlines()) == 6


WIDE = ["data set", *(f"attribute\nname {number}" for number in range(12))]


def test_a_table_that_is_too_wide_is_turned_where_that_helps():
    rows = [["ours", *["10.0"] * 12], ["random", *["20.0"] * 12]]
    assert console.turned_to_fit(WIDE, rows, 200) == (WIDE, rows)
    header, turned = console.turned_to_fit(WIDE, rows, 80)
    assert header == ["data set", "ours", "random"]
    assert turned[0] == ["attribute name 0", "10.0", "20.0"]
    assert [row[0] for row in turned] == [f"attribute name {number}" for number in range(12)]
    assert console.turned_to_fit(["a", "b" * 90], [["x", "y"]] * 40, 80)[0] == ["a", "b" * 90]
    assert console.turned_to_fit(WIDE, [], 80) == (WIDE, [])
