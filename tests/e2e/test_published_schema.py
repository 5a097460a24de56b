"""Every answer held against OpenAI's published API description, by the checker beside the checkout.

The checker is not part of this repository: where it is absent these tests skip.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.fleet import SERVERS, Server
from tests.support.programs import ROOT
from tests.support.stack import threaded

CHECKER = ROOT.parent / "shared" / "openai" / "validate.py"
KEY = "sk-schema-0123456789"
KEYS = f'[[keys]]\nname = "team-a"\nkey = "{KEY}"\n'

pytestmark = pytest.mark.skipif(not CHECKER.exists(), reason="the checker is not beside this checkout")


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)
def test_every_answer_fits_the_published_description(server: Server) -> None:
    with threaded(server.options(), KEYS, **server.backend) as one:
        command = [sys.executable, str(CHECKER), "live", "--base-url", f"{one.url}/v1"]
        command += ["--api-key", KEY, "--model", "m", *([] if server.tools else ["--no-tools"])]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=55, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "0 problems" in finished.stdout
