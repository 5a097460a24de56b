"""Classes whose members pydantic checks without being its models."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NotRequired

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from gateway.formats.checked import checked_as, given, members_of


class Cup:
    """Something with members."""

    size: Annotated[int, Field(ge=1)]
    colour: str | None = None
    handles: int = 1
    made: ClassVar[int] = 0


CUP = TypeAdapter(members_of(Cup))


@pytest.mark.parametrize(
    ("body", "checked"),
    [
        ({"size": 2}, {"size": 2}),
        ({"size": 2, "colour": None}, {"size": 2, "colour": None}),
        ({"size": 2, "handles": 0, "lid": True, "made": 5}, {"size": 2, "handles": 0}),
    ],
)
def test_what_was_given_is_checked_and_nothing_is_added(
    body: dict[str, Any], checked: dict[str, Any]
) -> None:
    assert CUP.validate_python(body) == checked


@pytest.mark.parametrize("body", [{}, {"size": 0}, {"size": "2"}, {"size": 2, "colour": 3}])
def test_what_is_wrong_or_missing_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CUP.validate_python(body)


def test_a_given_member_is_not_null() -> None:
    colour = TypeAdapter(checked_as("Colour", {"colour": NotRequired[given(Cup, "colour")]}, more="forbid"))
    assert colour.validate_python({"colour": "red"}) == {"colour": "red"}
    assert colour.validate_python({}) == {}
    for body in ({"colour": None}, {"lid": True}):
        with pytest.raises(ValidationError):
            colour.validate_python(body)


def test_a_limit_of_what_may_not_be_null_stays() -> None:
    size = TypeAdapter(given(Cup, "size"))
    assert size.validate_python(1) == 1
    with pytest.raises(ValidationError):
        size.validate_python(0)
