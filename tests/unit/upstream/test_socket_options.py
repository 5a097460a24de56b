"""Options of sockets: which are set, and that a system without them, or that refuses them, is no obstacle."""

from __future__ import annotations

import errno
import socket
from typing import cast

import pytest

from gateway.upstream import socket_options


class Recording:
    """A socket that notes the options set on it; `refuses` all of them when told."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, *, refuses: bool = False) -> None:
        self.family = family
        self.options: list[tuple[int, int, int]] = []
        self._refuses = refuses

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if self._refuses:
            raise OSError(errno.ENOPROTOOPT, "not here")
        self.options.append((level, option, value))

    @property
    def sock(self) -> socket.socket:
        """This as what a socket's user takes."""
        return cast("socket.socket", self)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of the options as Linux has them."""
    for name, number in (("_QUICKACK", 12), ("_USER_TIMEOUT", 18), ("_KEEP_IDLE", 4)):
        monkeypatch.setattr(socket_options, name, number)


def test_a_peer_that_vanished_is_found_in_time_whether_bytes_are_under_way_or_not(linux: None) -> None:
    recording = Recording()
    socket_options.tune(recording.sock)
    tcp = {option: value for level, option, value in recording.options if level == socket.IPPROTO_TCP}
    assert tcp[18] == 1000 * socket_options.DEAD_AFTER
    assert tcp[4] + tcp[socket.TCP_KEEPINTVL] * tcp[socket.TCP_KEEPCNT] == socket_options.DEAD_AFTER
    assert tcp[socket.TCP_NODELAY] == 1
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in recording.options


def test_a_closed_window_is_allowed_and_no_longer(linux: None) -> None:
    recording = Recording()
    socket_options.allow_closed_window(recording.sock, True)
    socket_options.allow_closed_window(recording.sock, False)
    assert recording.options == [(6, 18, 0), (6, 18, 1000 * socket_options.DEAD_AFTER)]


def test_only_tcp_is_acknowledged_at_once(linux: None) -> None:
    assert socket_options.quick_reads(Recording().sock) == socket_options.FIRST_READS
    assert socket_options.quick_reads(Recording(socket.AF_INET6).sock) == socket_options.FIRST_READS
    assert socket_options.quick_reads(Recording(socket.AF_UNIX).sock) == 0
    assert socket_options.quick_reads(None) == 0


def test_a_system_without_the_options_is_served_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_QUICKACK", "_USER_TIMEOUT", "_KEEP_IDLE"):
        monkeypatch.setattr(socket_options, name, None)
    recording = Recording()
    socket_options.tune(recording.sock)
    socket_options.allow_closed_window(recording.sock, True)
    socket_options.acknowledge(recording.sock)
    assert socket_options.quick_reads(recording.sock) == 0
    assert {option for _, option, _ in recording.options}.isdisjoint({4, 12, 18})


def test_a_system_that_refuses_the_options_is_no_error(linux: None) -> None:
    recording = Recording(refuses=True)
    socket_options.tune(recording.sock)
    socket_options.acknowledge(recording.sock)
    assert recording.options == []
