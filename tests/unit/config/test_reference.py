import pytest

from gateway.config.reference import BEGIN, END, reference, rewritten


@pytest.mark.parametrize(
    "row",
    [
        "| `timeout` | a number of seconds, above 0, at most 86,400 | `60.0` |",
        "| `auth` | `keys`, `none` | unset |",
        "| `slots` | a whole number, at least 1, at most 1,024 | 1; 8 for `glm4` and `openai` |",
        '| `url` | a URL such as "http://127.0.0.1:8001" | **needed** |',
        "| `tls.ca_file` | the path of a file | unset |",
        "| `access` | `true` or `false` | `true` |",
    ],
)
def test_a_key_has_its_kind_range_and_default(row: str) -> None:
    assert row in reference()


def test_tables_are_headed_as_in_the_file() -> None:
    assert "### `[server]`" in reference()
    assert "### `[[backends]]`" in reference()


def test_only_what_stands_between_the_markers_is_renewed() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert rewritten(page) == f"before\n{BEGIN}\n\n{reference()}\n{END}\nafter\n"


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        rewritten("nothing")
