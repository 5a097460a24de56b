from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from gateway.simulator.options import Options


def test_defaults_give_an_instant_server_on_a_free_port_of_this_machine() -> None:
    options = Options()
    assert (options.host, options.port, options.latency, options.speed) == ("127.0.0.1", 0, 0.0, 0.0)


def test_options_cannot_be_changed_afterwards() -> None:
    with pytest.raises(FrozenInstanceError):
        Options().port = 8000  # type: ignore[misc]  # the point of the test
