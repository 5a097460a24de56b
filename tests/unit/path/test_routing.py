"""Where a request may go: decided before it waits, without asking a server."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import (
    BadRequest,
    ContextExceeded,
    Draining,
    GatewayError,
    ModelNotFound,
    NoBackend,
    UnsupportedParameter,
    UpstreamError,
    UpstreamRejected,
)
from gateway.formats import jsontext, openai
from gateway.path.call import Call
from gateway.path.routing import Plan, RoutingTable
from gateway.tenancy.keys import Tenant
from gateway.upstream.backend import Backend
from tests.support.stack import configured

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
LONG = [{"role": "user", "content": "字" * 20_000}]
LONGER = '[[models]]\nname = "m"\ncontext = 64\ndefault_output = 8\ncontext_fallbacks = ["big"]\n'
OTHER = '[[models]]\nname = "m"\nfallbacks = ["big"]\n'


def split(share: float, more: str = "") -> str:
    """The model `m` with a canary `new`."""
    return f'[[models]]\nname = "m"\ncanary = {{ model = "new", share = {share} }}\n{more}'


class Desk:
    """Terms over backends that are never asked, each given with its dialect."""

    def __init__(self, extra: str = "", serves: dict[str, str] | None = None, **dialects: str) -> None:
        urls = {name: (f"http://{name}:80", dialect) for name, dialect in dialects.items()}
        self.settings = configured(urls, extra, serves=serves or {})
        fleet = {
            one.name: Backend(one, clock=time.monotonic, transport=None) for one in self.settings.backends
        }
        self.chances: list[float] = []
        self.routing = RoutingTable(self.settings, fleet, lambda: self.chances.pop(0))

    def plan(self, call: Call | None = None, **body: Any) -> Plan:
        """Plan a request for the model `m`; `body` is what it has besides a short question."""
        return self.routing.plan(call or ask(**body), self.settings.names["m"])


def ask(**body: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    return Call(openai.read_chat(jsontext.write(body)))


async def test_a_request_that_nobody_can_take_is_refused_with_its_reason() -> None:
    door_context = Desk(a="chatglm2")
    with pytest.raises(ContextExceeded):
        door_context.plan(messages=LONG)
    with pytest.raises(BadRequest, match="last message"):
        door_context.plan(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])


async def test_of_mixed_servers_only_those_that_can_are_in_the_plan() -> None:
    door_context = Desk(old="chatglm2", new="openai")
    assert door_context.plan().backends == ("old", "new")
    assert door_context.plan(tools=TOOLS).backends == ("new",)


async def test_when_none_can_the_first_refusal_is_told() -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        Desk(old="chatglm2", older="chatglm").plan(tools=TOOLS)
    assert refused.value.param == "tools"


async def test_what_a_request_may_lose_is_known_before_it_waits() -> None:
    assert Desk(old="chatglm2", new="openai").plan(seed=1, logprobs=True).ignored == ("logprobs", "seed")


async def test_the_lean_form_goes_to_servers_that_have_no_pairs() -> None:
    empty = [{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}]
    call = Call(ask(messages=[*empty, {"role": "user", "content": "hi"}]).request, lean=ask().request)
    outgoing = Desk(old="chatglm2", new="openai").plan(call).outgoing
    assert jsontext.read(outgoing["old"].body)["history"] == [["", "x"]]
    assert jsontext.read(outgoing["new"].body)["messages"] == [{"role": "user", "content": "hi"}]


async def test_servers_of_one_kind_get_the_same_bytes() -> None:
    outgoing = Desk(a="chatglm2", b="chatglm2", c="chatglm").plan().outgoing
    assert outgoing["a"] is outgoing["b"]
    assert outgoing["a"] is not outgoing["c"]


async def test_a_session_keeps_its_backend_by_the_name_that_the_client_gave_it() -> None:
    door_context = Desk('[[models]]\nname = "m"\nbalance = "session"\n', a="openai", b="openai")
    claims = [
        door_context.plan(replace(ask(user=user), session=session)).slot_request(("a",), 0.0).affinity
        for user, session in (("u", "s"), ("v", "s"), ("u", ""))
    ]
    assert claims == ["s", "s", "u"]


async def test_a_claim_knows_whose_it_is_how_large_and_how_long_it_waits() -> None:
    plan = Desk(a="openai").plan(replace(ask(), tenant=Tenant("t", weight=3, priority=1)))
    slot_request = plan.slot_request(("a",), 1.5)
    assert (slot_request.model, slot_request.tenant, slot_request.weight, slot_request.priority) == (
        "m",
        "t",
        3,
        1,
    )
    assert (slot_request.size, slot_request.waited) == (len(plan.outgoing["a"].body), 1.5)


async def test_too_long_a_chat_is_planned_for_a_longer_model_that_the_key_may_use() -> None:
    door_context = Desk(LONGER, {"b": "big"}, a="openai", b="openai")
    plan = door_context.plan(messages=LONG)
    assert (plan.model.name, plan.backends, plan.instead) == ("big", ("b",), True)
    assert not door_context.plan().instead
    with pytest.raises(ContextExceeded):
        door_context.plan(Call(ask(messages=LONG).request, Tenant("t", frozenset({"m"}))))


async def test_an_outage_has_other_models_than_a_chat_too_long() -> None:
    door_context = Desk(OTHER, {"b": "big"}, a="openai", b="openai")
    model = door_context.settings.names["m"]
    (plan,) = door_context.routing.elsewhere(replace(ask(), session="s"), model, UpstreamError("x"))
    assert (plan.model.name, plan.request.model, plan.call.session) == ("big", "big", "s")
    assert door_context.routing.elsewhere(ask(), model, ContextExceeded("x")) == []


async def test_a_plan_is_renewed_by_other_terms_if_these_still_know_its_model() -> None:
    old = Desk(a="openai").plan()
    new = Desk(a="openai", b="openai")
    assert new.routing.renewed(old).backends == ("a", "b")
    assert new.routing.renewed(old).routing is new.routing
    gone = Desk(serves={"a": "other"}, a="openai")
    with pytest.raises(NoBackend):
        gone.routing.renewed(old)
    with pytest.raises(ModelNotFound):
        gone.routing.plan(ask(), new.settings.names["m"])


async def test_a_backend_whose_streams_fail_is_asked_whole() -> None:
    plan = Desk(a="chatglm3").plan(stream=True)
    assert plan.outgoing["a"].streams
    whole = plan.asked_whole("a")
    assert not whole.streams
    assert not jsontext.read(whole.body).get("stream")


# --- canaries --------------------------------------------------------------------------------------


def canary_of(plan: Plan) -> tuple[str, str] | None:
    return None if plan.canary is None else (plan.canary.told.model, plan.canary.told.result)


def apart(share: float, more: str = "", **dialects: str) -> Desk:
    """A desk whose backend `b` serves the canary."""
    return Desk(split(share, more), {"b": "new"}, **({"a": "openai", "b": "openai"} | dialects))


async def test_the_share_of_a_canary_is_planned_for_it_and_says_who_was_asked() -> None:
    plan = apart(1).plan()
    assert (plan.model.name, plan.backends, plan.instead, plan.request.model) == ("new", ("b",), True, "new")
    assert (canary_of(plan), plan.name) == (("new", "taken"), "m")
    rest = apart(0).plan()
    assert (rest.model.name, rest.instead, canary_of(rest), rest.name) == ("m", False, None, "m")


async def test_the_name_that_was_asked_for_is_the_clients_own_or_else_the_models() -> None:
    door_context = apart(1, 'aliases = ["alias"]\n')
    assert door_context.plan(model="alias").name == "alias"
    assert door_context.plan(model="").name == "m"
    assert apart(0).plan(model="").name == "m"


@pytest.mark.parametrize(
    "named",
    [
        pytest.param({"session": "s-{}"}, id="by-header"),
        pytest.param({"user": "u-{}"}, id="by-user"),
        pytest.param({"messages": [{"role": "user", "content": "question {}"}]}, id="by-first-question"),
    ],
)
async def test_a_share_of_the_conversations_goes_and_each_stays_on_its_side(named: dict[str, Any]) -> None:
    door_context = apart(0.3)
    taken = 0
    for number in range(400):
        own = jsontext.read(jsontext.write(named).replace(b"{}", b"%d" % number))
        session = own.pop("session", "")
        first = {"messages": [{"role": "user", "content": "hi"}], **own}
        later = {**first, "messages": [*first["messages"], {"role": "assistant", "content": "x"}, *GOES_ON]}
        sides = {
            door_context.plan(replace(ask(**body, stream=stream), session=session)).model.name
            for body in (first, later)
            for stream in (False, True)
        }
        assert len(sides) == 1
        taken += sides == {"new"}
    assert 70 <= taken <= 170  # 120, give or take five standard deviations


GOES_ON = [{"role": "user", "content": "and then?"}]


async def test_what_belongs_to_no_conversation_goes_by_chance() -> None:
    door_context = apart(0.5)
    door_context.chances = [0.49, 0.5]
    messages = [{"role": "system", "content": "Tell a joke."}]
    assert [door_context.plan(messages=messages).model.name for _ in range(2)] == ["new", "m"]
    assert door_context.chances == []


async def test_a_header_names_a_conversation_before_its_user_does() -> None:
    door_context = apart(0.5)
    for number in range(50):
        call = replace(ask(user=f"u-{number}"), session="s")
        assert door_context.plan(call).model.name == door_context.plan(replace(ask(), session="s")).model.name


async def test_a_key_that_may_not_use_the_canary_stays() -> None:
    plan = apart(1).plan(replace(ask(), tenant=Tenant("t", frozenset({"m"}))))
    assert (plan.model.name, plan.instead, canary_of(plan)) == ("m", False, ("new", "forbidden"))
    both = apart(1).plan(replace(ask(), tenant=Tenant("t", frozenset({"m", "new"}))))
    assert canary_of(both) == ("new", "taken")


async def test_what_the_canary_cannot_take_stays() -> None:
    door_context = apart(1, b="chatglm2")
    plan = door_context.plan(tools=TOOLS)
    assert (plan.model.name, canary_of(plan)) == ("m", ("new", "unfit"))
    assert door_context.plan().model.name == "new"


async def test_a_chat_too_long_for_the_canary_stays_though_the_canary_has_a_longer_model() -> None:
    longer = 'context = 64\ndefault_output = 8\ncontext_fallbacks = ["big"]\n'
    more = f'[[models]]\nname = "new"\n{longer}'
    door_context = Desk(split(1, more), {"b": "new", "c": "big"}, a="openai", b="openai", c="openai")
    assert canary_of(door_context.plan(messages=[{"role": "user", "content": "字" * 200}])) == (
        "new",
        "unfit",
    )


async def test_what_the_model_itself_cannot_take_may_be_its_canarys() -> None:
    assert canary_of(apart(1, a="chatglm2").plan(tools=TOOLS)) == ("new", "taken")
    with pytest.raises(UnsupportedParameter):
        apart(1, a="chatglm2", b="chatglm2").plan(tools=TOOLS)


@pytest.mark.parametrize(
    ("model", "canary", "result"),
    [("openai", "openai", "taken"), ("openai", "chatglm2", "unfit"), ("chatglm2", "openai", "unfit")],
)
async def test_several_choices_go_only_where_one_generation_makes_them_on_both(
    model: str, canary: str, result: str
) -> None:
    assert canary_of(apart(1, a=model, b=canary).plan(n=2)) == ("new", result)


async def test_a_canary_has_no_canary_of_its_own_nor_has_a_fallback() -> None:
    more = 'fallbacks = ["new"]\n[[models]]\nname = "new"\ncanary = { model = "newer", share = 1 }\n'
    door_context = Desk(split(1, more), {"b": "new", "c": "newer"}, a="openai", b="openai", c="openai")
    assert door_context.plan().model.name == "new"
    (fallback,) = door_context.routing.elsewhere(ask(), door_context.settings.names["m"], UpstreamError("x"))
    assert (fallback.model.name, fallback.canary) == ("new", None)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(UpstreamError("x"), id="failure"),
        pytest.param(NoBackend("x"), id="nobody-there"),
        pytest.param(ContextExceeded("x"), id="too-long"),
        pytest.param(UpstreamRejected("x"), id="refused"),
    ],
)
async def test_what_a_canary_fails_is_planned_for_the_model_that_was_asked(error: GatewayError) -> None:
    door_context = apart(1)
    asked = door_context.routing.returned(door_context.plan(replace(ask(), session="s")), error)
    assert asked is not None
    assert (asked.model.name, asked.instead, asked.request.model) == ("m", False, "m")
    assert (canary_of(asked), asked.call.session, asked.name) == (("new", "returned"), "s", "m")
    assert door_context.routing.returned(asked, error) is None


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(UpstreamRejected("x", code="content_filter"), id="filtered"),
        pytest.param(Draining("x"), id="our-own-end"),
    ],
)
async def test_what_must_not_move_stays_with_the_canary(error: GatewayError) -> None:
    door_context = apart(1)
    assert door_context.routing.returned(door_context.plan(), error) is None


async def test_nothing_is_given_back_that_no_canary_took_or_that_nobody_else_takes() -> None:
    error = UpstreamError("x")
    stayed = apart(0)
    assert stayed.routing.returned(stayed.plan(), error) is None
    only = apart(1, a="chatglm2")
    assert only.routing.returned(only.plan(tools=TOOLS), error) is None
    gone = Desk(serves={"a": "other"}, a="openai")
    assert gone.routing.returned(only.plan(), error) is None
    many = apart(1)
    apart_now = Desk(serves={"b": "new"}, a="chatglm2", b="openai")
    assert apart_now.routing.returned(many.plan(n=2), error) is None


async def test_a_canarys_plan_stays_one_when_it_is_renewed() -> None:
    plan = apart(0).routing.renewed(apart(1).plan())
    assert (plan.model.name, plan.instead, canary_of(plan)) == ("new", True, ("new", "taken"))
    back = apart(1).routing.returned(plan, UpstreamError("x"))
    assert back is not None
    assert apart(1).routing.renewed(back).model.name == "m"


async def test_copies_are_tried_once_on_their_model_alone() -> None:
    door_context = Desk(split(1, 'fallbacks = ["new"]\n'), {"b": "new"}, a="openai", b="openai")
    routing = door_context.routing.for_copies()
    assert routing.plan(ask(), door_context.settings.names["m"]).model.name == "m"
    assert routing.attempts == 1
    assert routing.elsewhere(ask(), door_context.settings.names["m"], UpstreamError("x")) == []
    assert door_context.plan().model.name == "new"
