"""Templates of text chunks: the constant bytes around the text, and the bytes to write around it.

A server writes the same bytes around every piece of text. Once one chunk has been parsed, a chunk with the
same bytes around a JSON string differs only in that string, and need not be parsed. This is verified and
not assumed: before a template is used, its bytes with another text in them are parsed and compared.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from gateway.dialects.shared.state import REASONING, ChunkMeaning
from gateway.formats import jsontext

_MARK = "\u2063text of the chunk\u2063"
_MARK_WRITTEN = _MARK.encode()
_END = b"\n\n"
_NAMES = ("content", *REASONING)
_SAFE = (
    rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?:[0-9a-cefA-CEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}'
    rb"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})))"
)
_TEXT = re.compile(_SAFE + rb"++")
"""Matches the inside of a JSON string that is not empty and has no half surrogate pair."""
_OPENING = {name: re.compile(rb'"%b"\s*:\s*"' % name.encode()) for name in _NAMES}


class ChunkTemplate(NamedTuple):
    """The bytes before and after the text of a chunk, and the bytes to write around the text.

    `parts` is empty if the chunk is sent unchanged.
    """

    head: bytes
    tail: bytes
    parts: tuple[bytes, ...]

    def text(self, event: bytes) -> bytes | None:
        """Return the text in an event, still JSON-escaped; None if the event does not match the template."""
        if not (event.startswith(self.head) and event.endswith(self.tail)):
            return None
        text = event[len(self.head) : -len(self.tail)]
        if _TEXT.fullmatch(text) is None:
            return None
        try:
            str(text, "utf-8")
        except UnicodeDecodeError:
            return None
        return text

    def written(self, event: bytes, text: bytes) -> bytes:
        """Return the event to send."""
        return text.join(self.parts) if self.parts else event


def shape_of(
    chunk: dict[str, Any], said: list[ChunkMeaning], raw: bytes, out: dict[str, Any]
) -> ChunkTemplate | None:
    """Return the template of a chunk that holds one text and nothing else; None for other chunks.

    None is also returned in case of doubt.

    Args:
        chunk: the parsed chunk.
        said: what the chunk adds to each choice.
        raw: the event without its terminating blank line.
        out: the chunk that is sent to the client.
    """
    if len(said) != 1 or not _says_text_alone(said[0], chunk) or "role" in out["choices"][0]["delta"]:
        return None
    members = said[0].members
    (name,) = (name for name in members if members[name])
    opening = _OPENING[name].search(raw)
    text = _TEXT.match(raw, opening.end()) if opening else None
    if opening is None or text is None:
        return None
    head, tail = raw[: opening.end()], raw[text.end() :]
    if not tail.startswith(b'"') or not _means(head + _MARK_WRITTEN + tail, chunk, members, name):
        return None
    if out == chunk:
        return ChunkTemplate(head, tail + _END, ())
    parts = _parts(out, members[name])
    return None if parts is None else ChunkTemplate(head, tail + _END, parts)


def _says_text_alone(one: ChunkMeaning, chunk: dict[str, Any]) -> bool:
    saying = [name for name, value in one.members.items() if value]
    delta = one.delta
    return (
        len(saying) == 1
        and saying[0] in _NAMES
        and isinstance(one.members[saying[0]], str)
        and one.choice.get("delta") is one.members
        and not (delta.tools or delta.logprobs or one.choice.get("finish_reason") or chunk.get("usage"))
        and (delta.text or delta.extras.get(saying[0])) == one.members[saying[0]]
    )


def _means(raw: bytes, chunk: dict[str, Any], members: dict[str, Any], name: str) -> bool:
    """Return True if `raw`, whose text is the mark, parses to `chunk` with the mark as the member `name`."""
    text, members[name] = members[name], _MARK
    try:
        return bool(jsontext.read_lenient(raw[5:]) == chunk)
    except ValueError:
        return False
    finally:
        members[name] = text


def _parts(out: dict[str, Any], text: str) -> tuple[bytes, ...] | None:
    delta = out["choices"][0]["delta"]
    marked = {name: _MARK if value == text and name in _NAMES else value for name, value in delta.items()}
    shown = {**out, "choices": [{**out["choices"][0], "delta": marked}]}
    parts = tuple((b"data: " + jsontext.write(shown) + _END).split(_MARK_WRITTEN))
    return parts if len(parts) == 1 + sum(value == _MARK for value in marked.values()) else None
