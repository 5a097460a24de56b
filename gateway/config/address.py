"""Address: where a plane listens, a TCP host and port or a Unix socket."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - names what is recognised, binds nothing


@dataclass(frozen=True)
class Address:
    """A parsed `listen` value: `host` and `port`, or `path` alone for a Unix socket.

    Port 0 lets the system choose. IPv6 hosts are kept without their brackets.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read "host:port", "[::1]:port" or "unix:/path"; a ValueError says what is wrong and the remedy."""
        if text.startswith("unix:"):
            return cls(path=_socket_path(text.removeprefix("unix:")))
        host, colon, port = text.rpartition(":")
        if "：" in text:
            raise ValueError(f'"{text}" holds a full-width colon; write ":"')
        if "://" in text:
            raise ValueError(f'"{text}" is a URL; write host:port alone, such as "127.0.0.1:8000"')
        if not colon or not port.isascii() or not port.isdecimal():
            raise ValueError(f'"{text}" has no port; write host:port, such as "127.0.0.1:8000"')
        if int(port) > 65_535:
            raise ValueError(f"port {port} is out of range; it must lie between 0 and 65535")
        return cls(host=_host(host, text), port=int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: loopback addresses, "localhost" and Unix sockets."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:  # another host name: assume that it can be reached from outside
            return False

    def collides_with(self, other: Address) -> bool:
        """Whether both cannot be bound at once: the same socket, or the same port where one is a wildcard."""
        if self.path or other.path:
            return self.path == other.path
        if self.port != other.port or self.port == 0:
            return False
        return self.host == other.host or not _WILDCARDS.isdisjoint({self.host, other.host})


def _socket_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError('a Unix socket needs an absolute path, such as "unix:/run/gateway.sock"')
    return path


def _host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return str(ip_address(host[1:-1]))
    if ":" in host:
        raise ValueError(f'"{text}" is ambiguous; put an IPv6 address into brackets, such as "[::1]:8000"')
    if not host or any(char.isspace() or char == "/" for char in host):
        raise ValueError(f'"{text}" names no host; write "127.0.0.1:PORT", or "0.0.0.0:PORT" for all')
    return host
