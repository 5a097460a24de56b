"""What drives sockets here runs on both event loops; the gateway uses uvloop where there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the transport's tests twice."""
    asyncio_loop = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith("test_transport"):
        return {**asyncio_loop, "uvloop": uvloop.new_event_loop}
    return asyncio_loop
