"""docs/errors.md holds every error of the table, as the table has it.

`python -m tests.guards.test_error_docs` renews its table.
"""

import inspect
import json
import re
from pathlib import Path

import openai
import pytest

from gateway.errors import TABLE, GatewayError, Row

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
TEXT = PAGE.read_text(encoding="utf-8")

BEGIN = "<!-- errors: begin; made by `python -m tests.guards.test_error_docs` -->"
END = "<!-- errors: end -->"

COLUMNS = ("status", "type", "code", "outcome", "retried", "`x-should-retry`", "meaning")

EACH = [pytest.param(error, id=error.__name__) for error in TABLE]


def error_table() -> str:
    """The table of docs/errors.md, by status and then in the order of `TABLE`."""
    rows = sorted(TABLE.items(), key=lambda item: item[1].status)
    head = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"
    return head + "".join(row_of(error, row) for error, row in rows)


def row_of(error: type[GatewayError], row: Row) -> str:
    code = f"`{row.code}`" if row.code else "null"
    retried = "yes" if row.retryable else "no"
    repeat = "not sent" if row.repeat is None else f"`{str(row.repeat).lower()}`"
    meaning = meaning_of(error)
    return f"| {row.status} | `{row.type}` | {code} | `{row.outcome}` | {retried} | {repeat} | {meaning} |\n"


def meaning_of(error: type[GatewayError]) -> str:
    """The first paragraph of the class's docstring."""
    first, _, _ = inspect.cleandoc(error.__doc__ or "").partition("\n\n")
    return " ".join(first.split()).replace("|", "\\|")


def renewed(page: str) -> str:
    """The page with its table made anew."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{error_table()}\n{END}{tail}"


def every_error(base: type[GatewayError] = GatewayError) -> set[type[GatewayError]]:
    """The tree below `base`; other tests' own errors do not belong to it."""
    below = [error for error in base.__subclasses__() if error.__module__.startswith("gateway.")]
    return {base}.union(*map(every_error, below))


def test_the_table_is_the_one_the_errors_make() -> None:
    assert renewed(TEXT) == TEXT, "renew it: python -m tests.guards.test_error_docs"


@pytest.mark.parametrize("error", EACH)
def test_every_error_says_what_it_means_in_its_own_words(error: type[GatewayError]) -> None:
    assert "__doc__" in vars(error)
    assert meaning_of(error).endswith(".")


def test_every_error_that_can_be_raised_has_a_row() -> None:
    # These only gather others; what is raised is one of their kinds.
    assert {error.__name__ for error in every_error() - TABLE.keys()} == {
        "GatewayError",
        "Unavailable",
        "UpstreamTimeout",
    }


def test_the_page_tells_truly_which_statuses_forbid_a_repeat() -> None:
    forbidden = {row.status for row in TABLE.values() if row.repeat is False}
    assert forbidden == {501, 502, 504}
    assert all(row.repeat is False for row in TABLE.values() if row.status in forbidden)


def test_the_example_has_the_four_members_of_an_error() -> None:
    example = json.loads(re.findall(r"```json\n(.*?)\n```", TEXT, re.DOTALL)[0])
    assert list(example["error"]) == ["message", "type", "param", "code"]


def test_the_named_classes_of_the_sdk_exist() -> None:
    named = re.findall(r"`(\w+Error)`", TEXT)
    assert named
    assert [name for name in named if not hasattr(openai, name)] == []


if __name__ == "__main__":
    PAGE.write_text(renewed(TEXT), encoding="utf-8")
