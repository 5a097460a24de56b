"""One backend: its dialect, its profile for a model, and what it is called."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.config import TimeoutsSettings
from gateway.dialects import DIALECTS
from gateway.scheduling.deadlines import DeadlineLimits
from gateway.upstream.backend import Backend, limits
from gateway.upstream.transport import GatewayTransport
from tests.support.servers import Servers, native
from tests.support.stack import configured

SERVERS = Servers(a=native())


def backend(dialect: str = "chatglm2", extra: str = "", **fields: Any) -> tuple[Backend, Any]:
    """The backend, and the model it serves."""
    settings = configured(SERVERS.urls(dialect), extra, **fields)
    (made,) = settings.backends
    return Backend(made, clock=time.monotonic, transport=SERVERS.transport), settings.names["m"]


def test_a_backend_knows_its_dialect() -> None:
    one, _ = backend("glm4")
    assert one.dialect is DIALECTS["glm4"]
    assert repr(one) == "<Backend a glm4>"


def test_a_server_without_streams_is_shown_as_one() -> None:
    one, _ = backend()
    one.no_streams = True
    assert repr(one) == "<Backend a chatglm2 without streams>"


def test_a_profile_holds_the_settings_of_model_and_backend() -> None:
    extra = '[[models]]\nname = "m"\nmax_output = 100\nstrict = true\nsystem = "pair"\n'
    one, model = backend("chatglm3", extra, v3_stream="safe", variant="2024-01")
    profile = one.profile(model)
    assert (profile.max_output, profile.strict, profile.system) == (100, True, "pair")
    assert (profile.v3_stream, profile.variant) == ("safe", "2024-01")


def test_the_model_is_called_as_the_server_knows_it() -> None:
    one, model = backend()
    assert one.profile(model).model == "m"
    renamed, model = backend(served_name="chatglm2-6b-int4")
    assert renamed.profile(model).model == "chatglm2-6b-int4"


def test_limits_are_the_configured_time_outs() -> None:
    timeouts = TimeoutsSettings(connect=1, first_token=2, between_tokens=3, total=4)
    assert limits(timeouts) == DeadlineLimits(1, 2, 3, 4)


async def test_without_a_transport_of_its_own_it_makes_a_real_one() -> None:
    settings = configured(SERVERS.urls("chatglm2"))
    one = Backend(settings.backends[0], clock=time.monotonic, transport=None)
    assert isinstance(one.client._http._transport, GatewayTransport)
    await one.aclose()


@pytest.mark.parametrize(
    ("dialect", "fields", "whole", "stream"),
    [
        pytest.param("chatglm2", {}, None, None, id="the-dialect-says"),
        pytest.param("openai", {}, None, None, id="openai"),
        pytest.param("openai", {"slots": 1}, "drain", "probe", id="openai-of-one-slot"),
        pytest.param("openai", {"slots": 1, "abandon": "close"}, "close", "close", id="configured"),
        pytest.param("glm4", {"slots": 1, "abandon": "drain"}, "drain", "drain", id="configured-elsewhere"),
    ],
)
def test_how_a_card_becomes_free_is_the_dialects_to_say_or_the_configurations(
    dialect: str, fields: dict[str, Any], whole: str | None, stream: str | None
) -> None:
    one, _ = backend(dialect, **fields)
    assert (one.abandon_whole, one.abandon_stream) == (whole, stream)


@pytest.mark.parametrize(
    ("server", "dialect", "given", "whole"),
    [
        ("llama.cpp", "openai", {}, "drain"),
        ("uvicorn", "openai", {}, None),
        ("", "openai", {}, None),
        ("llama.cpp", "openai", {"abandon": "close"}, "close"),
    ],
)
def test_a_program_that_goes_on_for_clients_that_left_is_known_by_its_name(
    server: str, dialect: str, given: dict[str, Any], whole: str | None
) -> None:
    one, _ = backend(dialect, **given)
    one.learn_program(server)
    assert one.abandon_whole == whole
    assert one.abandon_stream == given.get("abandon")
