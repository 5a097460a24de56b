"""What `gateway check` warns of."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import parse
from gateway.config.warnings import warnings

BACKEND = '[[backends]]\nname = "a"\nurl = "http://127.0.0.1:1"\ndialect = "openai"\nmodels = ["m"]\n'


@pytest.mark.parametrize(
    ("listen", "count"),
    [
        ("127.0.0.1:9000", 0),
        ("[::1]:9000", 0),
        ("localhost:9000", 0),
        ("unix:/run/admin.sock", 0),
        ("0.0.0.0:9000", 1),
        ("[::]:9000", 1),
        ("10.0.0.5:9000", 1),
    ],
)
def test_an_admin_plane_beyond_this_machine_is_warned_of(listen: str, count: int) -> None:
    text = f'[admin]\nlisten = "{listen}"\n{BACKEND}'
    told = list(warnings(parse(text, file="test.toml", folder=Path(), environ={})))
    assert len(told) == count
    assert all(line.startswith("admin.listen: ") for line in told)
