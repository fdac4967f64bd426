"""What is no TOML: the line, what stands there, and a cure."""

import pytest

from qdgs_jax.runs.config import ConfigError, parse_run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nname = shapes", "line 2, `name = shapes`: what follows = is no value"),
        ("name = True", "line 1, `name = True`: what follows = is no value"),
        ("name shapes", "line 1, `name shapes`: fields are written name = value"),
        ("[archive\na = 1", "line 1, `[archive`: a table's name is not closed by ]"),
        ("[[measures]\na = 1", "line 1, `[[measures]`: the name of a list of tables"),
        ('name = "shapes\na = 1', 'line 1, `name = "shapes`: a text has no end'),
        ('name = """shapes', "at the end: a text has no end"),
        ('path = "a\\q"', 'line 1, `path = "a\\q"`: a \\ in a text is written \\\\'),
        ("bins = [2, 2\na = 1", "a list is not closed"),
        ("bins = [2 2]", "line 1, `bins = [2 2]`: a list is not closed"),
        ("[a]\nb = 1\nb = 2\n", "line 3, `b = 2`: this stands in the file twice"),
        ("[a]\n[b]\n[a]", "line 3, `[a]`: this table stands there twice"),
        ("a = 1 b = 2", "line 1, `a = 1 b = 2`: something follows the value"),
        ('a = "\x01"', 'line 1, `a = "\\x01"`: Illegal character'),
    ],
)
def test_text_that_is_no_toml_is_refused_with_its_line_and_a_cure(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_run(text, "my.toml")
    assert str(caught.value).startswith("my.toml: not valid TOML: ")
    assert message in str(caught.value)
