"""Where a request may go: decided before it waits, without asking a server."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import (
    BadRequest,
    ContextExceeded,
    ModelNotFound,
    NoBackend,
    UnsupportedParameter,
    UpstreamError,
)
from gateway.planning import Asking, Plan, Terms
from gateway.tenancy.keys import Tenant
from gateway.upstream.backend import Backend
from gateway.wire import jsontext, openai
from tests.support.stack import configured

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
LONG = [{"role": "user", "content": "字" * 20_000}]
LONGER = '[[models]]\nname = "m"\ncontext = 64\ndefault_output = 8\ncontext_fallbacks = ["big"]\n'
OTHER = '[[models]]\nname = "m"\nfallbacks = ["big"]\n'


class Desk:
    """Terms over backends that are never asked, each given with its dialect."""

    def __init__(self, extra: str = "", serves: dict[str, str] | None = None, **dialects: str) -> None:
        urls = {name: (f"http://{name}:80", dialect) for name, dialect in dialects.items()}
        self.settings = configured(urls, extra, serves=serves or {})
        fleet = {
            one.name: Backend(one, clock=time.monotonic, transport=None) for one in self.settings.backends
        }
        self.points = iter((0.0, 0.999))
        self.terms = Terms(self.settings, fleet, self.points.__next__)

    def plan(self, asking: Asking | None = None, **body: Any) -> Plan:
        """Plan a request for the model `m`; `body` is what it has besides a short question."""
        return self.terms.plan(asking or ask(**body), self.settings.names["m"])


def ask(**body: Any) -> Asking:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    return Asking(openai.read_chat(jsontext.write(body)))


async def test_a_request_that_nobody_can_take_is_refused_with_its_reason() -> None:
    desk = Desk(a="chatglm2")
    with pytest.raises(ContextExceeded):
        desk.plan(messages=LONG)
    with pytest.raises(BadRequest, match="last message"):
        desk.plan(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])


async def test_of_mixed_servers_only_those_that_can_are_in_the_plan() -> None:
    desk = Desk(old="chatglm2", new="openai")
    assert desk.plan().backends == ("old", "new")
    assert desk.plan(tools=TOOLS).backends == ("new",)


async def test_when_none_can_the_first_refusal_is_told() -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        Desk(old="chatglm2", older="chatglm").plan(tools=TOOLS)
    assert refused.value.param == "tools"


async def test_what_a_request_may_lose_is_known_before_it_waits() -> None:
    assert Desk(old="chatglm2", new="openai").plan(seed=1, logprobs=True).ignored == ("logprobs", "seed")


async def test_the_lean_form_goes_to_servers_that_have_no_pairs() -> None:
    empty = [{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}]
    asking = Asking(ask(messages=[*empty, *ask().request.body["messages"]]).request, lean=ask().request)
    outgoing = Desk(old="chatglm2", new="openai").plan(asking).outgoing
    assert jsontext.read(outgoing["old"].body)["history"] == [["", "x"]]
    assert jsontext.read(outgoing["new"].body)["messages"] == [{"role": "user", "content": "hi"}]


async def test_servers_of_one_kind_get_the_same_bytes() -> None:
    outgoing = Desk(a="chatglm2", b="chatglm2", c="chatglm").plan().outgoing
    assert outgoing["a"] is outgoing["b"]
    assert outgoing["a"] is not outgoing["c"]


async def test_a_session_keeps_its_backend_by_the_name_that_the_client_gave_it() -> None:
    desk = Desk('[[models]]\nname = "m"\nbalance = "session"\n', a="openai", b="openai")
    claims = [
        desk.plan(replace(ask(user=user), session=session)).claim(("a",), 0.0).affinity
        for user, session in (("u", "s"), ("v", "s"), ("u", ""))
    ]
    assert claims == ["s", "s", "u"]


async def test_a_claim_knows_whose_it_is_how_large_and_how_long_it_waits() -> None:
    plan = Desk(a="openai").plan(replace(ask(), tenant=Tenant("t", weight=3, priority=1)))
    claim = plan.claim(("a",), 1.5)
    assert (claim.model, claim.tenant, claim.weight, claim.priority) == ("m", "t", 3, 1)
    assert (claim.size, claim.waited) == (len(plan.outgoing["a"].body), 1.5)


async def test_too_long_a_chat_is_planned_for_a_longer_model_that_the_key_may_use() -> None:
    desk = Desk(LONGER, {"b": "big"}, a="openai", b="openai")
    plan = desk.plan(messages=LONG)
    assert (plan.model.name, plan.backends, plan.instead) == ("big", ("b",), True)
    assert not desk.plan().instead
    with pytest.raises(ContextExceeded):
        desk.plan(Asking(ask(messages=LONG).request, Tenant("t", frozenset({"m"}))))


async def test_an_outage_has_other_models_than_a_chat_too_long() -> None:
    desk = Desk(OTHER, {"b": "big"}, a="openai", b="openai")
    model = desk.settings.names["m"]
    (plan,) = desk.terms.elsewhere(ask(), model, UpstreamError("x"))
    assert (plan.model.name, plan.request.model) == ("big", "big")
    assert desk.terms.elsewhere(ask(), model, ContextExceeded("x")) == []


async def test_a_plan_is_renewed_by_other_terms_if_these_still_know_its_model() -> None:
    old = Desk(a="openai").plan()
    new = Desk(a="openai", b="openai")
    assert new.terms.renewed(old).backends == ("a", "b")
    assert new.terms.renewed(old).terms is new.terms
    gone = Desk(serves={"a": "other"}, a="openai")
    with pytest.raises(NoBackend):
        gone.terms.renewed(old)
    with pytest.raises(ModelNotFound):
        gone.terms.plan(ask(), new.settings.names["m"])


async def test_a_backend_whose_streams_fail_is_asked_whole() -> None:
    plan = Desk(a="chatglm3").plan(stream=True)
    assert plan.outgoing["a"].streams
    whole = plan.asked_whole("a")
    assert not whole.streams
    assert not jsontext.read(whole.body).get("stream")
