"""docs/headers.md names every header that the doors send or read, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = re.compile(rb"[a-z]+(-[a-z]+)*")
BY_THE_SERVER = {"date", "allow"}
"""Sent by uvicorn and by Starlette's routing, on our behalf."""
VALUES = {
    b"nosniff",
    b"no-cache",
    b"no-store",
    b"bearer",
    b"basic",
    b"identity",
    b"close",
    b"no",
    b"true",
    b"false",
    b"verbose",
    b"body",
    b"cross-site",
    b"same-site",
}
"""Bytes that look like a header's name and are something else."""


def headers_in_code() -> set[str]:
    """Every name that stands for itself or begins a line, as bytes, in the HTTP face."""
    found: set[bytes] = set()
    for path in [*ROOT.glob("gateway/api/**/*.py"), ROOT / "gateway/tenancy/keys.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                name = node.value.partition(b": ")[0]
                if NAME.fullmatch(name):
                    found.add(name)
    return {name.decode() for name in found - VALUES}


def headers_in_docs() -> set[str]:
    text = (ROOT / "docs/headers.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", text, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)}


def test_every_header_is_documented_and_every_documented_header_is_there() -> None:
    assert headers_in_docs() == headers_in_code() | BY_THE_SERVER
