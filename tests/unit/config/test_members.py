"""Members in the place of their service: backends like any others, and models that stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import Config, ServiceMember, effective, expanded, parse, service_host

TEXT = """
[[models]]
name = "m"
aliases = ["n"]
backends = ["spare"]
[[backends]]
name = "first"
url = "http://127.0.0.1:1"
dialect = "openai"
models = ["m"]
[[backends]]
name = "cards"
url = "{url}"
dialect = "chatglm3"
models = ["m", "only-there"]
weight = 3
slots = 2
api_key = "sk-12345678"
timeouts = {{ total = 9 }}
discover = "{discover}"
[[backends]]
name = "spare"
url = "http://127.0.0.1:2"
dialect = "openai"
"""


def read(url: str = "https://Cards.models.svc:8000/base", discover: str = "dns") -> Config:
    return parse(TEXT.format(url=url, discover=discover), file="config.toml", folder=Path(), environ={})


def models(config: Config) -> dict[str, tuple[str, ...]]:
    return {model.name: model.backends for model in config.resolved_models}


def test_members_stand_in_the_place_of_their_service_in_the_order_of_their_numbers() -> None:
    written = read()
    assert models(written)["m"] == ("spare", "first", "cards")
    members = {3: ServiceMember("10.0.0.1", ("10.0.0.1",)), 0: ServiceMember("10.0.0.2", ("10.0.0.2",))}
    config = expanded(written, {"cards": members})
    assert [one.name for one in config.backends] == ["first", "cards-0", "cards-3", "spare"]
    assert models(config) == {
        "m": ("spare", "first", "cards-0", "cards-3"),
        "only-there": ("cards-0", "cards-3"),
    }
    assert config.services == ()
    assert set(config.names) == {"m", "n", "only-there"}


def test_a_member_is_the_table_at_another_address_under_the_same_name() -> None:
    (one,) = expanded(read(), {"cards": {0: ServiceMember("10.0.0.2", ("10.0.0.2",))}}).backends[1:2]
    (service,) = read().services
    assert service_host(service) == "cards.models.svc"
    assert one.url == "https://cards.models.svc:8000/base"
    changed = {"name": "cards-0", "url": one.url, "addresses": ("10.0.0.2",), "discover": None}
    assert one.model_dump() == service.model_dump() | changed


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://_http._tcp.cards.svc", "http://cards.svc:8123"),
        ("https://_grpc._tcp.cards.svc/base", "https://cards.svc:8123/base"),
        ("http://cards.service.consul", "http://cards.service.consul:8123"),
        ("http://_http._tcp.cards.svc.", "http://cards.svc:8123"),
    ],
)
def test_an_srv_record_gives_port_and_weight_and_the_host_is_the_domain(url: str, wanted: str) -> None:
    member = ServiceMember("node:8123", ("10.0.0.2",), 8123, 70)
    (one,) = expanded(read(url, "srv"), {"cards": {0: member}}).backends[1:2]
    assert (one.url, one.weight) == (wanted, 70)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://cards.svc.", "http://cards.svc"),
        ("http://cards.svc.:8000", "http://cards.svc:8000"),
        ("http://_odd.svc:8000/p", "http://_odd.svc:8000/p"),
    ],
)
def test_the_dot_that_ends_a_name_is_for_dns_alone(url: str, wanted: str) -> None:
    (one,) = expanded(read(url), {"cards": {0: ServiceMember("10.0.0.2", ("10.0.0.2",))}}).backends[1:2]
    assert one.url == wanted


def test_the_tables_weight_counts_where_records_say_nothing() -> None:
    (one,) = expanded(read(), {"cards": {0: ServiceMember("10.0.0.2", ("10.0.0.2",))}}).backends[1:2]
    assert one.weight == 3


def test_a_service_without_members_leaves_its_models() -> None:
    config = expanded(read(), {})
    assert [one.name for one in config.backends] == ["first", "spare"]
    assert models(config) == {"m": ("spare", "first"), "only-there": ()}
    assert config.fallbacks_of(config.names["only-there"], "outage") == ()


def test_a_configuration_without_services_stays_what_it_is() -> None:
    plain = expanded(read(), {})
    assert expanded(plain, {"cards": {0: ServiceMember("10.0.0.2", ("10.0.0.2",))}}) is plain


def test_what_is_found_could_have_been_written_down() -> None:
    config = expanded(read(), {"cards": {0: ServiceMember("10.0.0.2", ("10.0.0.2", "fd00::2"))}})
    text = effective(config).replace("***", "sk-12345678")
    again = parse(text, file="config.toml", folder=Path(), environ={})
    assert again.backends == config.backends
    assert models(again) == models(config)
