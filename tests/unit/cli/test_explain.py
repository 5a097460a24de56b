"""Where a request would go: models in order, backends that can and cannot take it, losses and limits."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gateway.cli.explain import explained, live_state, told
from gateway.errors import BadRequest, ModelNotFound
from gateway.formats import openai
from gateway.path.call import Call
from gateway.path.routing import RoutingTable
from gateway.upstream.backend import Backend
from tests.support.site import site
from tests.support.stack import configured

URLS = {"a": ("http://a:1", "chatglm2"), "b": ("http://b:1", "openai"), "c": ("http://c:1", "openai")}
MODELS = """
[[models]]
name = "m"
context = 300
default_output = 50
fallbacks = ["spare"]
context_fallbacks = ["long"]
[[models]]
name = "long"
backends = ["b"]
timeouts = { first_token = 5 }
"""
SERVES = {"b": "m", "c": "spare"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def way(live: Any = None, **body: Any) -> dict[str, Any]:
    settings = configured(URLS, MODELS, serves=SERVES)
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    return explained(settings, json.dumps(request).encode(), live)


def names(way: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    return [(one["model"], one["why"], [each["name"] for each in one["backends"]]) for one in way["steps"]]


def test_models_stand_in_order_with_the_reason_to_ask_them() -> None:
    found = way()
    assert found["starts"] == "m"
    assert names(found) == [
        ("m", "asked", ["a", "b"]),
        ("long", "context", ["b"]),
        ("spare", "outage", ["c"]),
    ]


def test_each_backend_has_its_path_its_losses_and_its_limits() -> None:
    old, new = way(seed=1)["steps"][0]["backends"]
    assert (old["path"], old["streams"], old["ignored"]) == ("/", False, ["seed"])
    assert (new["path"], new["ignored"]) == ("/v1/chat/completions", [])
    longer = way()["steps"][1]["backends"][0]
    assert longer["timeouts"] == {"connect": 1, "first_token": 5, "between_tokens": 30, "total": 600}


def test_a_backend_that_cannot_take_it_says_why() -> None:
    found = way(tools=[TOOL])
    old, new = found["steps"][0]["backends"]
    assert (old["takes"], new["takes"]) == (False, True)
    assert old["refusal"]["code"] == "unsupported_parameter"
    assert "cannot take it: 400 unsupported_parameter" in told(found)


def test_a_chat_that_is_too_long_begins_at_the_longer_model() -> None:
    found = way(messages=[{"role": "user", "content": "word " * 500}])
    assert found["starts"] == "long"
    assert "begins at long" in told(found)


def test_what_nobody_can_take_is_refused() -> None:
    settings = configured({"a": URLS["a"]})
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]}
    found = explained(settings, json.dumps(body).encode(), None)
    assert found["starts"] is None
    assert "is refused" in told(found)


def test_several_choices_are_several_generations_where_no_server_makes_them() -> None:
    assert [step["generations"] for step in way(n=2)["steps"]] == [2, 1, 1]


def test_what_the_gateway_would_refuse_itself_is_raised() -> None:
    with pytest.raises(ModelNotFound):
        way(model="other")
    with pytest.raises(BadRequest):
        way(messages=[])
    with pytest.raises(BadRequest):
        way(model="")


def test_without_a_running_gateway_states_are_unknown() -> None:
    found = way()
    assert found["state"] == "unknown"
    assert found["steps"][0]["backends"][0]["state"] == "unknown"
    assert "states: unknown" in told(found)
    assert live_state("http://127.0.0.1:1") is None


async def test_a_running_gateway_tells_how_its_backends_are(monkeypatch: pytest.MonkeyPatch) -> None:
    async with site({"a": URLS["a"]}) as here:
        page = here.gateway.metrics.render()[0].decode()
    monkeypatch.setattr("gateway.cli.explain.fetch", lambda *_: page)
    live = live_state("http://anywhere")
    assert live is not None
    found = way(live)
    first, second = found["steps"][0]["backends"]
    assert (found["state"], first["state"], first["in_flight"]) == ("live", "up", "0")
    assert second["state"] == "unknown"
    assert "- a (chatglm2): up, 0 of 1 slots taken" in told(found)
    assert "0 waiting" in told(found)


def states(**of: str) -> dict[tuple[str, str], str]:
    return {(name, "state"): state for name, state in of.items()}


@pytest.mark.parametrize(
    ("live", "starts"),
    [
        (states(a="up", b="up", c="up"), "m"),
        (states(a="down", b="half_open", c="up"), "m"),
        (states(a="paused", b="down", c="up"), "m"),
        (states(a="down", b="sick", c="up"), "spare"),
        (states(a="down", b="down", c="down"), None),
    ],
)
def test_model_whose_backends_are_out_is_not_where_it_begins(live: Any, starts: str | None) -> None:
    found = way(live)
    assert (found["starts"], found["down"]) == (starts, starts is None)
    said = told(found).splitlines()[0]
    assert said.endswith(f"begins at {starts}" if starts else "no backend that could take it is up")


def test_refused_request_is_no_outage() -> None:
    settings = configured({"a": URLS["a"]})
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]}
    found = explained(settings, json.dumps(body).encode(), states(a="down"))
    assert (found["starts"], found["down"]) == (None, False)
    assert told(found).splitlines()[0].endswith("is refused")


CARDS = {"cards": ("http://cards.svc:8000", "chatglm2")}
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()


def test_a_service_stands_for_its_servers_where_they_are_not_known() -> None:
    settings = configured(CARDS, discover="dns")
    found = explained(settings, BODY, None)
    assert (names(found), found["starts"]) == ([("m", "asked", ["cards"])], "m")
    assert "- cards (chatglm2): the servers that DNS names (dns), 1 slots each\n" in told(found)
    found = explained(settings, BODY, {("m", "waiting"): "0"})
    assert "the servers that DNS names (dns), 1 slots each; none is known now\n" in told(found)


def test_a_running_gateway_tells_the_servers_of_a_service() -> None:
    live = {("cards-0", "state"): "up", ("cards-7", "state"): "down", ("cards-7", "in_flight"): "1"}
    found = explained(configured(CARDS, discover="dns"), BODY, live)
    assert names(found) == [("m", "asked", ["cards-0", "cards-7"])]
    assert "- cards-7 (chatglm2): down, 1 of 1 slots taken" in told(found)


# --- canary and shadow -----------------------------------------------------------------------------

SPLIT = """
[[models]]
name = "m"
canary = { model = "newest", share = %s }
shadow = { model = "spare", share = 0.25 }
[[models]]
name = "new"
backends = ["b"]
aliases = ["newest"]
"""


def split_way(share: float, **body: Any) -> dict[str, Any]:
    settings = configured(URLS, SPLIT % share, serves={"b": "m", "c": "spare"})
    request = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    return explained(settings, json.dumps(request).encode(), None)


def test_without_either_there_is_none() -> None:
    assert (way()["canary"], way()["shadow"]) == (None, None)


def test_canary_and_shadow_are_steps_with_their_share() -> None:
    found = split_way(1)
    assert [(one["model"], one["why"]) for one in found["steps"]] == [
        ("m", "asked"),
        ("new", "canary"),
        ("spare", "shadow"),
    ]
    assert found["canary"] == {"model": "new", "share": 1, "falls": True}
    assert found["shadow"] == {"model": "spare", "share": 0.25, "at_once": 4, "timeout": 120}
    text = told(found)
    assert "begins at new" in text
    assert "canary: 100.0% of the conversations go to new; this one does, unless x-session-affinity" in text
    assert "shadow: 25.0% of the requests are copied to spare, 4 at a time, 120 s each at most" in text


@pytest.mark.parametrize(
    ("share", "body", "starts", "falls"),
    [
        pytest.param(0, {}, "m", False, id="not-chosen"),
        pytest.param(1, {"n": 2}, "m", True, id="choices-side-by-side"),
        pytest.param(0.5, {"messages": [{"role": "system", "content": "x"}]}, "m", None, id="by-chance"),
    ],
)
def test_a_request_that_does_not_go_to_the_canary_begins_at_its_model(
    share: float, body: dict[str, Any], starts: str, falls: bool | None
) -> None:
    found = split_way(share, **body)
    assert (found["starts"], found["canary"]["falls"]) == (starts, falls)


def test_a_conversation_is_told_the_side_that_the_relay_would_choose() -> None:
    sides = {split_way(0.5, user=f"u-{number}")["starts"] for number in range(30)}
    assert sides == {"m", "new"}
    settings = configured(URLS, SPLIT % 0.5, serves={"b": "m", "c": "spare"})
    fleet = {one.name: Backend(one, clock=time.monotonic, transport=None) for one in settings.backends}
    routing = RoutingTable(settings, fleet, lambda: 0.0)
    for number in range(30):
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "user": f"u-{number}"}
        plan = routing.plan(Call(openai.read_chat(json.dumps(body).encode())), settings.names["m"])
        assert plan.model.name == split_way(0.5, user=f"u-{number}")["starts"]
