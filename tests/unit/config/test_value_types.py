import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.config import value_types
from gateway.config.model import ModelSettings
from gateway.config.section import ServerSettings


def message(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value, strict=True)
    return caught.value.errors()[0]["msg"]


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, 86_401, "60", True])
def test_a_duration_is_a_positive_number_of_seconds(value: object) -> None:
    assert message(value_types.Seconds, value)


def test_a_wait_may_be_nothing() -> None:
    assert TypeAdapter(value_types.Wait).validate_python(0) == 0.0


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("https://gpu.example/prefix/", "https://gpu.example/prefix/"),
        ("http://[::1]:8001/", "http://[::1]:8001"),
        ("http://h:1//", "http://h:1"),
    ],
)
def test_a_url_loses_the_slash_of_a_bare_host_and_nothing_else(url: str, kept: str) -> None:
    assert TypeAdapter(value_types.Url).validate_python(url) == kept


@pytest.mark.parametrize(
    ("server", "kept"),
    [
        ("10.96.0.10", "10.96.0.10:53"),
        ("127.0.0.1:5353", "127.0.0.1:5353"),
        ("fd00::10", "[fd00::10]:53"),
        ("[fd00::10]", "[fd00::10]:53"),
        ("[FD00:0::10]:5353", "[fd00::10]:5353"),
    ],
)
def test_a_name_server_gets_port_53_unless_it_has_one(server: str, kept: str) -> None:
    assert TypeAdapter(value_types.NameServers).validate_python([server]) == (kept,)
    assert TypeAdapter(value_types.NameServers).validate_python([kept]) == (kept,)


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("ns.example:53", '"ns.example:53" is no IP address, with or without a port'),
        ("ns.example", "is no IP address"),
        ("", "is no IP address"),
        ("127.0.0.1:0", "has no port between 1 and 65535; leave it out for 53"),
        ("127.0.0.1:70000", "has no port between"),
        ("[::1]:dns", "has no port between"),
    ],
)
def test_a_name_server_is_an_address(server: str, reason: str) -> None:
    assert reason in message(value_types.NameServers, [server])


def test_addresses_are_kept_in_their_shortest_spelling() -> None:
    kept = TypeAdapter(value_types.IpAddresses).validate_python(["10.0.0.1", "FD00:0:0::1"])
    assert kept == ("10.0.0.1", "fd00::1")


@pytest.mark.parametrize("address", ["gpu.example", "10.0.0.1:80", "10.0.0", "", "fe80::1%eth0"])
def test_other_texts_are_no_addresses(address: str) -> None:
    assert f'"{address}"' in message(value_types.IpAddresses, [address])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        pytest.param("ftp://h", "must begin with", id="scheme"),
        pytest.param("127.0.0.1:8001", "must begin with", id="no-scheme"),
        pytest.param("http://", "no host", id="no-host"),
        pytest.param("http://me:hunter2@h", "api_key", id="credentials"),
        pytest.param("http://h/?key=hunter2", "query", id="query"),
        pytest.param("http://h/#hunter2", "fragment", id="fragment"),
        pytest.param("http://h/?", "query", id="empty-query"),
        pytest.param("http://h:99999", "malformed", id="port-out-of-range"),
        pytest.param("http://[::1", "malformed", id="half-a-bracket"),
        pytest.param("http://h /", "blank", id="blank"),
        pytest.param("http://h/\n", "control", id="newline"),
    ],
)
def test_a_wrong_url_is_refused_without_repeating_it(url: str, reason: str) -> None:
    text = message(value_types.Url, url)
    assert reason in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        pytest.param(value_types.Secret, "", "is empty", id="empty"),
        pytest.param(value_types.Secret, "hunter2 hunter2", "holds a blank", id="blank"),
        pytest.param(value_types.Secret, "hunter2\n", "holds a blank", id="newline"),
        pytest.param(value_types.Secret, "hunter2密", "outside ASCII", id="chinese"),
        pytest.param(value_types.Secret, ["hunter2"], "a text is wanted", id="list"),
        pytest.param(value_types.ClientKey, "hunter2", "shorter than 8", id="short"),
        pytest.param(value_types.ClientKey, "id.hunter2", "zhipuai", id="dot"),
        pytest.param(value_types.Digest, "hunter2", "no SHA-256", id="no-digest"),
        pytest.param(
            value_types.Digest,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "empty text",
            id="digest-of-nothing",
        ),
    ],
)
def test_a_wrong_secret_is_refused_without_repeating_it(kind: Any, value: object, reason: str) -> None:
    text = message(kind, value)
    assert reason in text
    assert "hunter2" not in text


def test_a_secret_does_not_show() -> None:
    secret = TypeAdapter(value_types.Secret).validate_python("hunter2hunter2")
    assert "hunter2" not in f"{secret} {secret!r}"
    assert secret.get_secret_value() == "hunter2hunter2"


def test_digests_are_kept_in_lower_case() -> None:
    assert TypeAdapter(value_types.Digest).validate_python("AB" * 32).get_secret_value() == "ab" * 32


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "x" * 257])
def test_a_model_name_has_no_blanks_and_an_end(name: str) -> None:
    assert message(value_types.ModelName, name)


@pytest.mark.parametrize("name", ["", "-a", "a/b", "模型", "x" * 65])
def test_a_label_fits_into_headers_and_metrics(name: str) -> None:
    assert message(value_types.Label, name)


def test_a_moment_is_no_text() -> None:
    assert "without quotes" in message(value_types.Moment, "2027-01-31")


def test_the_kind_of_a_field_is_found_also_where_it_may_be_unset() -> None:
    assert value_types.kinds_of(ModelSettings.model_fields["context"])[0].wanted == "a whole number of tokens"
    assert value_types.kinds_of(ServerSettings.model_fields["auth"]) == []


def test_the_kind_of_a_list_comes_before_its_items() -> None:
    wanted = [kind.wanted for kind in value_types.kinds_of(ModelSettings.model_fields["aliases"])]
    assert wanted == ["a list of model names", "a name without blanks"]


@pytest.mark.parametrize(
    ("host", "kept"),
    [
        ("Gateway.Example.org.", "gateway.example.org"),
        ("gateway", "gateway"),
        ("10.0.0.5", "10.0.0.5"),
        ("[FD00:0::5]", "fd00::5"),
        ("*", "*"),
    ],
)
def test_a_host_is_kept_as_it_is_compared(host: str, kept: str) -> None:
    assert TypeAdapter(value_types.HostNames).validate_python([host]) == (kept,)


@pytest.mark.parametrize("host", ["http://a", "a:8000", "a/b", "", "*.example.org", "a b", "[::1]:80"])
def test_a_host_is_a_name_and_nothing_else(host: str) -> None:
    assert message(value_types.HostNames, [host])


@pytest.mark.parametrize(
    ("origin", "kept"),
    [
        ("https://Chat.example.org/", "https://chat.example.org"),
        ("https://chat.example.org:443", "https://chat.example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://a:80", "http://a"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("*", "*"),
    ],
)
def test_an_origin_is_kept_as_browsers_write_it(origin: str, kept: str) -> None:
    assert TypeAdapter(value_types.Origins).validate_python([origin]) == (kept,)


@pytest.mark.parametrize(
    "origin", ["null", "chat.example.org", "https://a/b", "https://*.a", "https://u@a", ""]
)
def test_what_is_no_origin_is_refused_with_an_example(origin: str) -> None:
    assert "https://chat.example.org" in message(value_types.Origins, [origin])
