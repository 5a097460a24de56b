import pytest

from gateway.config.address import Address


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        pytest.param("127.0.0.1:8000", "127.0.0.1", 8000, "", id="ipv4"),
        pytest.param("[::1]:0", "::1", 0, "", id="ipv6"),
        pytest.param("gateway.local:65535", "gateway.local", 65535, "", id="name"),
        pytest.param("unix:/run/gateway.sock", "", 0, "/run/gateway.sock", id="unix"),
    ],
)
def test_an_address_is_read_and_written_back(text: str, host: str, port: int, path: str) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.path) == (host, port, path)
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        pytest.param("127.0.0.1", "write host:port", id="no-port"),
        pytest.param("127.0.0.1:http", "write host:port", id="port-is-a-word"),
        pytest.param("127.0.0.1:٣", "write host:port", id="port-in-other-digits"),
        pytest.param("127.0.0.1:65536", "between 0 and 65535", id="port-too-large"),
        pytest.param(":8000", "0.0.0.0:PORT", id="no-host"),
        pytest.param("::1:8000", "brackets", id="ipv6-without-brackets"),
        pytest.param("[localhost]:8000", "IPv4 or IPv6", id="brackets-around-a-name"),
        pytest.param("127.0.0.1：8000", "full-width colon", id="full-width-colon"),
        pytest.param("unix:run.sock", "absolute path", id="relative-socket"),
        pytest.param("http://127.0.0.1:8000", "is a URL; write host:port alone", id="a-url"),
    ],
)
def test_a_malformed_address_names_the_mend(text: str, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("example.org:1", False),
    ],
)
def test_only_loopback_and_sockets_are_local(text: str, *, local: bool) -> None:
    assert Address.parse(text).is_local is local


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        pytest.param("127.0.0.1:1", "127.0.0.1:1", True, id="same"),
        pytest.param("127.0.0.1:1", "127.0.0.1:2", False, id="other-port"),
        pytest.param("127.0.0.1:1", "0.0.0.0:1", True, id="wildcard"),
        pytest.param("[::]:1", "127.0.0.1:1", True, id="ipv6-wildcard"),
        pytest.param("127.0.0.1:1", "10.0.0.1:1", False, id="other-host"),
        pytest.param("127.0.0.1:0", "127.0.0.1:0", False, id="system-chooses"),
        pytest.param("unix:/a", "unix:/a", True, id="same-socket"),
        pytest.param("unix:/a", "127.0.0.1:0", False, id="socket-and-port"),
    ],
)
def test_addresses_that_cannot_be_bound_together_collide(one: str, other: str, *, collide: bool) -> None:
    assert Address.parse(one).collides_with(Address.parse(other)) is collide
    assert Address.parse(other).collides_with(Address.parse(one)) is collide
