"""Tables of commands, where they are read and where they are kept."""

from qdgs_jax.cli import console


def test_tables_are_as_wide_as_they_are_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    header = ["data set", *(f"a group of people {number}" for number in range(12))]
    console.show_table("Shares", header, [["cma_maega", *(["12.5"] * 12)]])
    shown = capsys.readouterr().out
    assert all(name in shown for name in header)
    assert len(shown.splitlines()) == 6
