"""What is wrong with the text of a TOML file: the line, what stands there, and how to mend it.

Python's reader knows where it stopped, in the words of a grammar; here they get those of
somebody who edits the file.
"""

from __future__ import annotations

import re
import tomllib

from qdgs_jax.ports.errors import printable

_SHOWN = 60  # characters of a line
_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_WORDS = (  # how the reader's message begins, what to say
    ("Invalid value", "what follows = is no value: texts need quotes, true and false no capitals"),
    ("Expected '=' after a key", "fields are written name = value, tables [name]"),
    ("Invalid statement", "fields are written name = value, tables [name]"),
    ("Invalid initial character for a key", "names are letters, digits, _ and -"),
    (
        "Expected newline or end of document",
        "something follows the value: fields have lines of their own",
    ),
    ("Illegal character '\\n'", "a text has no end: it needs a quote there, too"),
    ("Illegal character '\\r'", "a text has no end: it needs a quote there, too"),
    ("Unterminated string", "a text has no end: it needs a quote there, too"),
    ("Expected '\"", "a text has no end: it needs a quote there, too"),
    ("Expected \"'", "a text has no end: it needs a quote there, too"),
    ("Unescaped '\\'", "a \\ in a text is written \\\\, or the text in single quotes"),
    ("Unclosed array", "a list is not closed: commas between entries, and ] at the end"),
    ("Unclosed inline table", "a table is not closed: commas between fields, and } at the end"),
    ("Cannot overwrite a value", "this stands in the file twice: leave one out"),
    ("Cannot declare", "this table stands there twice: leave one out, or write [[name]] for lists"),
    ("Duplicate inline table key", "this stands in the table twice: leave one out"),
    ("Expected ']' at the end of a table", "a table's name is not closed by ]"),
    ("Expected ']]' at the end of an array", "the name of a list of tables is not closed by ]]"),
)


def toml_fault(text: str, error: tomllib.TOMLDecodeError) -> str:
    """Describe where a text is not TOML, and why.

    Args:
        text: of the file.
        error: what Python's reader said of it; kept where there are no words of ours.
    """
    said = str(error)
    found = _PLACE.search(said)
    what = said[: found.start()] if found else said
    words = next((ours for start, ours in _WORDS if what.startswith(start)), what)
    if found is None or found[1] is None:
        return f"at the end: {words}"
    lines = text.split("\n")
    number = min(int(found[1]), len(lines))
    line = lines[number - 1].strip()
    line = printable(line)
    shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
    return f"line {number}, `{shown}`: {words}" if shown else f"line {number}: {words}"
