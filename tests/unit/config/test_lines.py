import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.fault import KeyPath
from gateway.config.lines import locate

TEXT = '''\
# a comment [not.a.table]
top = 1

[server]
listen = "x = [y]" # z = 1
"quoted key" = 'a'
'literal' = """
[inside]
text = 1
"""

[[backends]]
name = "one"
models = [
  "a",  # comment, with ] and ,
  "b",
]
tls = { ca_file = "x", "cert_file" = """y""" }

[[backends]]
name = "two"
timeouts.total = 3

[backends.tls]
ca_file = "z"

[[backends.deep]]
a = 1
[[backends.deep]]
a = 2026-01-01T00:00:00Z
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param(("top",), 2, id="key-of-the-root"),
        pytest.param(("server",), 4, id="table"),
        pytest.param(("server", "listen"), 5, id="key"),
        pytest.param(("server", "quoted key"), 6, id="quoted-key"),
        pytest.param(("server", "literal"), 7, id="multi-line-text"),
        pytest.param(("backends",), 12, id="array-of-tables"),
        pytest.param(("backends", 0), 12, id="first-item"),
        pytest.param(("backends", 0, "models"), 14, id="array"),
        pytest.param(("backends", 0, "models", 1), 16, id="item-of-an-array"),
        pytest.param(("backends", 0, "tls", "cert_file"), 18, id="inline-table"),
        pytest.param(("backends", 1), 20, id="second-item"),
        pytest.param(("backends", 1, "timeouts", "total"), 22, id="dotted-key"),
        pytest.param(("backends", 1, "tls", "ca_file"), 25, id="table-below-an-item"),
        pytest.param(("backends", 1, "deep", 1, "a"), 30, id="array-below-an-item"),
    ],
)
def test_a_key_is_found_on_its_line(path: KeyPath, line: int) -> None:
    assert locate(TEXT)[path] == line


def test_escapes_in_quoted_keys_are_read() -> None:
    assert set(locate('"a\\tb\\u00e9\\"" = 1\n')) == {('a\tbé"',)}


def test_texts_that_end_in_quotes_do_not_swallow_what_follows() -> None:
    text = 'a = """x""""\nb = \'\'\'y\'\'\'\'\'\nc = "\\\\"\nd = ""\ne = 1\n'
    assert tomllib.loads(text)["e"] == 1
    assert locate(text)[("e",)] == 5


def test_line_ends_of_windows_count_once() -> None:
    assert locate("a = 1\r\n\r\nb = 2\r\n")[("b",)] == 3


def paths_of(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """Every path of parsed TOML."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path, *(found for key, item in items for found in paths_of(item, (*path, key)))}


def test_every_path_of_the_parsed_text_has_a_line() -> None:
    assert set(locate(TEXT)) == paths_of(tomllib.loads(TEXT)) - {()}


KEYS = st.sampled_from(["a", "b-c", '"q [x] #"', "'lit'", '"é\\n"'])
SCALARS = st.sampled_from(
    [
        "1",
        "-2.5e3",
        "true",
        '"t ] } , #"',
        "'x'",
        '"""m\n[n]\n"""',
        "'''\n'k'\n'''",
        "1979-05-27 07:32:00",
        '""',
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[ # c\n" + ",\n".join(items) + "\n]"),
        st.dictionaries(KEYS, inner, max_size=2).map(
            lambda pairs: "{ " + ", ".join(f"{key} = {value}" for key, value in pairs.items()) + " }"
        ),
    ),
    max_leaves=6,
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=3).map(
    lambda pairs: "".join(f"{key} = {value}  # end\n" for key, value in pairs.items())
)


@given(head=TABLES, items=st.lists(TABLES, max_size=3), tail=TABLES)
def test_any_document_is_followed_to_its_end(head: str, items: list[str], tail: str) -> None:
    text = head + "".join(f"\n[[list.of]]\n{item}" for item in items) + f"\n[tail.'x y']\n{tail}\nlast = 1\n"
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # the same key in two spellings
        return
    lines = locate(text)
    assert set(lines) == paths_of(data) - {()}
    assert lines[("tail", "x y", "last")] == text.count("\n")
