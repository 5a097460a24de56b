"""Members: plain classes whose members pydantic checks, without being its models.

A model of pydantic's writes down every member for every object, most of which are absent, and takes three
times as long to read one. Here a class annotates its members, and has those that may be absent as defaults;
what is checked is a dictionary of what was given, which becomes the object's own.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from types import NoneType
from typing import Any, ClassVar, Literal, NotRequired, Required, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict


def checked_as(name: str, members: dict[str, Any], *, more: Literal["ignore", "forbid"]) -> Any:
    """A type of dictionary for pydantic to check, strictly; and whether `more` members may be there."""
    made: Any = TypedDict(name, members)  # type: ignore[misc]  # made from a class: there is one list of them
    return with_config(ConfigDict(strict=True, extra=more, allow_inf_nan=False))(made)


def members_of(kind: type) -> Any:
    """What a class has annotated, as pydantic checks it; what has no default must be there."""
    members = {
        name: NotRequired[hint] if hasattr(kind, name) else Required[hint]
        for name, hint in _hints(kind).items()
    }
    return checked_as(kind.__name__, members, more="ignore")


def given(kind: type, name: str) -> Any:
    """What a member of a class may be where it is there and not null."""
    hint = _hints(kind)[name]
    kinds = [one for one in get_args(hint) if one is not NoneType]
    return reduce(or_, kinds) if NoneType in get_args(hint) else hint


def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}
