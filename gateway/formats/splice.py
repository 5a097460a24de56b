"""Changes a member of a JSON object in its bytes, where that is safe to do without parsing it again.

For bodies that `jsontext.read` has accepted: UTF-8, no key twice. Where the bytes leave a doubt the
functions give None, and the caller writes the object anew.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.formats import jsontext, large

_MODEL = b'"model"'
_VALUE = re.compile(rb"\s*:\s*")


def with_model(raw: bytes, body: dict[str, Any], new: str) -> bytes | None:
    """The object with `new` as its top-level `model`, which is added where there is none.

    `body` is what `raw` says. Returns None in doubt.
    """
    if "model" not in body:
        return with_member(raw, b'"model":' + jsontext.write(new)) if body else None
    # Written as an escape, the key could stand somewhere unseen, and what is found be another object's.
    old = body["model"]
    if jsontext.holds(raw, _MODEL, 2) or jsontext.holds(raw, b"\\u00") or not isinstance(old, str):
        return None
    place = raw.find(_MODEL)
    if place < 0:
        return None
    colon = _VALUE.match(raw, place + len(_MODEL))
    value = jsontext.write(old)
    if colon is None or not raw.startswith(value, colon.end()):
        return None
    rest = memoryview(raw)[colon.end() + len(value) :]
    if len(raw) > large.LARGE:
        return jsontext.joined((raw[: colon.end()], jsontext.write(new), rest))
    return b"".join((raw[: colon.end()], jsontext.write(new), rest))


def with_member(raw: bytes, member: bytes) -> bytes:
    """The object with one more member, such as `b'"a":1'`, before its others, of which there must be some."""
    place = raw.index(b"{") + 1
    if len(raw) > large.LARGE:
        return jsontext.joined((raw[:place], member, b",", memoryview(raw)[place:]))
    return b"%b%b,%b" % (raw[:place], member, raw[place:])
