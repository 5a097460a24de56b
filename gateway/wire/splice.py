"""Changes a member of a JSON object in its bytes, where that is safe to do without parsing it again.

For bodies that `jsontext.read` has accepted: UTF-8, no key twice. Where the bytes leave a doubt the
functions give None, and the caller writes the object anew.
"""

from __future__ import annotations

import re

from gateway.wire import jsontext

_MODEL = b'"model"'
_VALUE = re.compile(rb"\s*:\s*")


def with_model(raw: bytes, old: str, new: str) -> bytes | None:
    """The object with `new` as its model, where `old` stands as its top-level `model`; None in doubt."""
    # Written as an escape, the key could stand somewhere unseen, and what is found be another object's.
    if raw.count(_MODEL) != 1 or b"\\u00" in raw:
        return None
    colon = _VALUE.match(raw, raw.index(_MODEL) + len(_MODEL))
    value = jsontext.write(old)
    if colon is None or not raw.startswith(value, colon.end()):
        return None
    return raw[: colon.end()] + jsontext.write(new) + raw[colon.end() + len(value) :]


def with_member(raw: bytes, member: bytes) -> bytes:
    """The object with one more member, such as `b'"a":1'`, before its others, of which there must be some."""
    place = raw.index(b"{") + 1
    return b"%b%b,%b" % (raw[:place], member, raw[place:])
