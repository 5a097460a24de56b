"""What is wrong with a text that is no TOML, and what the line was probably meant to be.

The parser of the standard library says where it stopped and in its own words why. Here the usual mistakes are
tried out: where a changed line lets the parser get further, that line is the suggestion. A line that may hold
a secret is never repeated.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.config.messages import numeral

_POSITION = re.compile(r"\s*\(at line (\d+), column (\d+)\)")
_SECRET = re.compile(r"key|secret|token|passw|@|-----", re.IGNORECASE)
_LINES_BEFORE = 3
"""How many lines above the one where the parser stopped are tried: an open bracket is noticed late."""
_LONGEST_SHOWN = 160
_LONGEST_TEXT = 200_000
"""Most characters of a file in which mistakes are looked for."""

_STRAIGHT = str.maketrans(
    {
        **dict.fromkeys("“”„‟＂«»〝〞「」『』", '"'),
        **dict.fromkeys("‘’‚‛＇`", "'"),
        **dict.fromkeys("，、", ","),
        **dict.fromkeys("\u3000\u00a0\u2003\ufeff\u200b", " "),
        **dict(zip("＝：［］【】｛｝＃．；", "=:[][]{}#.;", strict=True)),
        **{chr(code): chr(code - 0xFEE0) for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF5B))},
    }
)
"""Quotes and punctuation of Chinese keyboards and word processors, and what TOML has in their place."""

_KEY = r"^(\s*[\w.\"'-]+\s*)"
_WORDS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}


@dataclass(frozen=True, slots=True)
class SyntaxMistake:
    """Where a text stops being TOML, counted from 1, and what to do about it. `column` 0: not known."""

    line: int
    column: int
    message: str


def mistake(text: str, error: tomllib.TOMLDecodeError) -> SyntaxMistake:
    """Say what `error` means for the person who wrote `text`."""
    line, column = _place(text, error)
    found = (
        (_remedy(text, line) or _repair(text, line) or _lone(text, line))
        if len(text) <= _LONGEST_TEXT
        else None
    )
    if found is None:
        return SyntaxMistake(line, column, _said(error))
    at, reason, better = found
    shown = (
        ""
        if not better or _SECRET.search(better) or len(better) > _LONGEST_SHOWN
        else f"; write: {better.strip()}"
    )
    return SyntaxMistake(at, column if at == line else 0, f"{reason}{shown}")


def _place(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, int]:
    position = _POSITION.search(str(error))
    if position:
        return int(position[1]), int(position[2])
    rest = text.rstrip()
    return rest.count("\n") + 1, 0


def _said(error: tomllib.TOMLDecodeError) -> str:
    words = _POSITION.sub("", str(error)).replace(" (at end of document)", " at the end of the file")
    if words.startswith("Cannot overwrite a value"):
        return "this key is written twice in its table; keep one of them"
    if words.startswith("Cannot declare"):
        return (
            "this table is written twice; put its keys into one, or head it [[NAME]] if there may be several"
        )
    return words


# --- what was meant --------------------------------------------------------------------------------


_NULL = re.compile(rf"{_KEY}=\s*(?:null|none|nil|undefined|~)?\s*[,;]?\s*(?:#.*)?$", re.IGNORECASE)
_REMARK = re.compile(r"^\s*(?://|;|--|/\*|%)\s*(.*)$")
_UNIT = re.compile(rf"{_KEY}=\s*\d[\d.]*\s*[A-Za-z]+\s*(?:#.*)?$")
_TWO = re.compile(rf"{_KEY}=\s*\d[\d.]*(?:\s+|\s*[-~/]\s*)\d[\d.]*\s*(?:#.*)?$")
_URL = re.compile(r"^\s*(https?://[^\s\"'=]+)\s*$")
_CLOSING = re.compile(r"^(\s*[\w.-]+\s*=\s*\{.*),(\s*\}.*)$")


def _remedy(text: str, stopped: int) -> tuple[int, str, str] | None:
    """What to do about a line that no changed one can stand for."""
    line = text.split("\n")[stopped - 1]
    if stopped == 1 and line.lstrip().startswith("{"):
        return (
            stopped,
            "this is JSON; the file is TOML, with tables headed [server] and keys such as a = 1",
            "",
        )
    if re.match(r"\s*[\w-]+:\s*$", line):
        return (
            stopped,
            "this is YAML; the file is TOML, with tables headed [server] and keys such as a = 1",
            "",
        )
    if re.match(r"<{7}|={7}|>{7}", line):
        return stopped, "a conflict of a merge was not resolved; keep one of the versions", ""
    if _NULL.match(line):
        return stopped, "there is no value; leave the key out for its default, or give it one", ""
    if _TWO.match(line):
        return stopped, "there are two values; keep one, or write a list where several may stand: [1, 2]", ""
    if found := _URL.match(line):
        return stopped, "the key is missing", f'url = "{found[1]}"'
    if re.match(r"\s*=", line):
        return stopped, "the key is missing before =", ""
    if _UNIT.match(line):
        return stopped, "a number has no unit; write seconds, bytes or tokens as a number alone", ""
    return None


def _lone(text: str, stopped: int) -> tuple[int, str, str] | None:
    """What to do about a line in which something is missing that cannot be guessed."""
    line, _ = _split_comment(text.split("\n")[stopped - 1])
    if found := re.match(r"^\s*([A-Za-z][\w.-]*)\s*$", line):
        name = found[1] if re.fullmatch(r"[a-z_]{1,30}", found[1]) else "KEY"  # it might be a pasted secret
        return stopped, f"there is a key without a value; write: {name} = ...", ""
    if re.match(r"^\s*(\"[^\"]*\"|'[^']*')\s*,?\s*$", line):
        return (
            stopped,
            "a text stands alone; a key and = belong before it, or it belongs into a list above",
            "",
        )
    if re.match(r"^[^=\"']*[\u3400-\u9fff]", line):
        return (
            stopped,
            "keys have English names (docs/configuration.md lists them); a remark begins with #",
            "",
        )
    return None


def _repair(text: str, stopped: int) -> tuple[int, str, str] | None:
    """The line that a usual mistake is in, the mistake in words, and the line without it."""
    lines = text.split("\n")
    for at in range(stopped, max(0, stopped - 1 - _LINES_BEFORE), -1):
        for reason, better in _candidates(lines[at - 1]):
            changed = [*lines[: at - 1], better, *lines[at:]]
            if _stops(changed) > stopped:
                return at, reason, better
    return None


def _stops(lines: list[str]) -> float:
    """The line where the parser stops; infinite for TOML."""
    text = "\n".join(lines)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return _place(text, error)[0]
    except RecursionError:
        return 0
    return float("inf")


def _candidates(line: str) -> Iterator[tuple[str, str]]:
    straight = line.translate(_STRAIGHT)
    odd = next((was for was, now in zip(line, straight, strict=True) if was != now), None)
    reason = (
        ""
        if odd is None
        else f'"{odd}" is no punctuation of TOML'
        if odd != "\u3000"
        else "a blank is full-width"
    )
    if odd is not None:
        yield reason, straight
    for start in dict.fromkeys((line, straight)):
        for words, repair in _REPAIRS:
            better = repair(start)
            if better != start:
                yield (f"{reason}, and {words}" if odd is not None and start == straight else words), better


def _split_comment(line: str) -> tuple[str, str]:
    head, mark, comment = line.partition(" #")
    return head.rstrip(), f"  #{comment}" if mark else ""


def _closed_quote(line: str) -> str:
    head, comment = _split_comment(line)
    for mark in "\"'":
        if head.count(mark) % 2:
            if re.search(rf"=\s*{mark}", head) or head.rstrip("],}").endswith(mark) is False:
                tail = re.search(r"[\],}\s]*$", head)
                cut = tail.start() if tail and "[" in head else len(head)
                return f"{head[:cut]}{mark}{head[cut:]}{comment}"
            return re.sub(r"=\s*", f"= {mark}", head, count=1) + comment
    return line


def _opened_quote(line: str) -> str:
    head, comment = _split_comment(line)
    return (
        re.sub(rf"{_KEY}=\s*([^\"'\[{{].*[\"'])$", r'\1= "\2', head) + comment
        if head.count('"') % 2
        else line
    )


def _in_digits(line: str) -> str:
    head, comment = _split_comment(line)
    found = re.match(rf"{_KEY}=\s*(\w{{1,5}})$", head)
    number = numeral(found[2]) if found else None
    return f"{found[1].rstrip()} = {number}{comment}" if found and number else line


def _quoted(line: str) -> str:
    head, comment = _split_comment(line)
    found = re.match(rf"{_KEY}=\s*([^\"'\[{{\s][^\"']*)$", head)
    return f'{found[1].rstrip()} = "{found[2].strip()}"{comment}' if found else line


def _quoted_items(line: str) -> str:
    head, comment = _split_comment(line)
    found = re.match(rf"{_KEY}=\s*\[([^\"'\]]+)\]$", head)
    if not found:
        return line
    items = ", ".join(f'"{item.strip()}"' for item in found[2].split(",") if item.strip())
    return f"{found[1].rstrip()} = [{items}]{comment}"


def _remarked(line: str) -> str:
    return _REMARK.sub(r"# \1", line)


def _last_comma(line: str) -> str:
    return _CLOSING.sub(r"\1\2", line)


def _thousands(line: str) -> str:
    return re.sub(
        rf"{_KEY}=\s*(\d{{1,3}}(?:,\d{{3}})+)\s*$",
        lambda m: f"{m[1].rstrip()} = {m[2].replace(',', '')}",
        line,
    )


def _booled(line: str) -> str:
    head, comment = _split_comment(line)
    found = re.match(rf"{_KEY}=\s*([A-Za-z]+)$", head)
    word = _WORDS.get(found[2].lower()) if found else None
    return f"{found[1].rstrip()} = {word}{comment}" if found and word else line


def _joined(line: str) -> str:
    found = re.match(rf"{_KEY}(?::=?|=>|==|\s)\s*(\S.*)$", line)
    if not found:
        return line
    joined = f"{found[1].rstrip()} = {found[2]}"
    return joined if re.search(r"=\s*[\"'\[{\d]|= (?:true|false)", joined) else _quoted(joined)


def _unended(line: str) -> str:
    return re.sub(r"[,;，；]\s*(#.*)?$", r"\1", line)


def _bracketed(line: str) -> str:
    head, comment = _split_comment(line)
    found = re.match(r"^\s*(\[{1,2})\s*([\w.\"'-]+)\s*\]{0,2}$", head)
    return f"{found[1]}{found[2]}{']' * len(found[1])}{comment}" if found else line


def _closed_list(line: str) -> str:
    head, comment = _split_comment(line)
    return f"{head.rstrip(',')}]{comment}" if "=" in head and head.count("[") > head.count("]") else line


def _separated(line: str) -> str:
    return re.sub(r"([\"'])\s+(?=[\"'])", r"\1, ", line)


def _unescaped(line: str) -> str:
    return re.sub(r'"([^"\']*\\[^"\']*)"', r"'\1'", line)


def _unpadded(line: str) -> str:
    return re.sub(r"=\s*0+(\d+)", r"= \1", line)


_REPAIRS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("true and false are written so", _booled),
    ("numbers are written in digits", _in_digits),
    ("a remark begins with #", _remarked),
    ("nothing stands behind the last comma of a table in braces", _last_comma),
    ("a number has no commas in it", _thousands),
    ("a quote is missing", _closed_quote),
    ("a quote is missing", _opened_quote),
    ("a bracket is missing or too many", _bracketed),
    ("a bracket is missing", _closed_list),
    ("items of a list are separated by commas", _separated),
    ("nothing stands behind a value", _unended),
    ("a backslash in double quotes begins an escape; take single quotes", _unescaped),
    ("numbers have no zeros before them", _unpadded),
    ("texts stand in quotes", _quoted),
    ("texts stand in quotes", _quoted_items),
    ("a key and its value are joined by =", _joined),
)
