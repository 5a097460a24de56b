"""Says where a chat request would go, in which order, with which limits, and why. Sends nothing.

What it needs is the configuration; a running gateway, if one answers, adds how its backends are. The request
is translated as for a real request, for every backend of its model and of the fallbacks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from gateway import config
from gateway.cli.healthcheck import fetch
from gateway.dialects import DIALECTS
from gateway.errors import BadRequest, ContextExceeded, ModelNotFound
from gateway.formats import openai
from gateway.formats.openai import ChatRequest
from gateway.path.call import Call
from gateway.path.routing import point_of
from gateway.scheduling import traffic_split
from gateway.upstream.backend import profile

Way: TypeAlias = dict[str, Any]
"""Values that JSON can hold."""
Live: TypeAlias = Mapping[tuple[str, str], str]
"""What a running gateway tells: (name of a backend or model, what) -> value."""

SESSION = "x-session-affinity"
"""The header that names a conversation; it is no part of the body that is explained."""

_SAMPLE = re.compile(r"^gateway_(backend_state|backend_inflight|queue_depth)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def live_state(url: str, timeout: float = 1.0) -> Live | None:
    """Ask the admin plane at `url` how its backends and queues are; None where nobody answers."""
    text = fetch(url, "/metrics", timeout)
    return None if text is None else dict(_samples(text))


def _samples(text: str) -> Iterator[tuple[tuple[str, str], str]]:
    for what, labels, value in _SAMPLE.findall(text):
        named = dict(_LABEL.findall(labels))
        if what == "queue_depth":
            yield (named["model"], "waiting"), value.removesuffix(".0")
        elif what == "backend_inflight":
            yield (named["backend"], "in_flight"), value.removesuffix(".0")
        elif float(value):
            yield (named["backend"], "state"), named["state"]


def explained(settings: config.Config, body: bytes, live: Live | None) -> Way:
    """The whole way of a request. Raises `BadRequest`, `ModelNotFound`."""
    request = openai.read_chat(body)
    model = _model(settings, request.model)
    canary, shadow = _canary(settings, request, model), model.shadow
    steps = [_step(settings, request, model, "asked", live)]
    if canary is not None:
        other = settings.names[canary["model"]]
        steps.append(_step(settings, request.of(other.name), other, "canary", live))
    for why in ("context", "outage"):
        others = settings.fallbacks_of(model, "context" if why == "context" else "outage")
        steps += [_step(settings, request.of(other.name), other, why, live) for other in others]
    if shadow is not None:
        other = settings.names[shadow.model]
        steps.append(_step(settings, request.of(other.name), other, "shadow", live))
    queue, retries = settings.queue, settings.retries
    starts = _starts(steps, canary)
    up = starts if live is None or starts is None else _first_up(steps, starts)
    return {
        "asked": request.model or model.name,
        "stream": request.stream,
        "starts": up,
        "down": starts is not None and up is None,
        "state": "live" if live is not None else "unknown",
        "canary": canary,
        "shadow": shadow and shadow.model_dump(),
        "steps": steps,
        "queue": {"timeout": queue.timeout, "length": queue.length, "bytes": queue.bytes},
        "retries": {"attempts": retries.attempts, "budget": retries.budget, "least": retries.least},
    }


def _model(settings: config.Config, asked: str) -> config.ModelSettings:
    name = asked or settings.server.default_model
    if not name:
        raise BadRequest("model is required.", param="model")
    if name not in settings.names:
        known = ", ".join(settings.names)
        raise ModelNotFound(f"There is no model {name!r}; there are: {known}.", param="model")
    return settings.names[name]


def _canary(settings: config.Config, request: ChatRequest, model: config.ModelSettings) -> Way | None:
    """The model's canary, its share, and whether this conversation falls to it where nothing else names it.

    That is None where chance decides. A key that may not use the canary, and a session header, are not seen
    from here.
    """
    if model.canary is None:
        return None
    other = settings.names[model.canary.model]
    point = point_of(Call(request), other.name)
    falls = None if point is None else traffic_split.chosen(model.canary.share, point)
    return {"model": other.name, "share": model.canary.share, "falls": falls}


def _starts(steps: list[Way], canary: Way | None) -> str | None:
    """The model whose backends are asked first; None where the request is refused."""
    first = steps[0]
    if canary is not None and canary["falls"] and _takes(steps[1]) and _is_one(first) and _is_one(steps[1]):
        return str(steps[1]["model"])
    if _takes(first):
        return str(first["model"])
    if first["backends"][0]["refusal"]["code"] != ContextExceeded("").code:
        return None
    longer = [step for step in steps if step["why"] == "context"]
    return next((step["model"] for step in longer if _takes(step)), None)


def _first_up(steps: list[Way], starts: str) -> str | None:
    """The model that is asked now: `starts`, or the first fallback with a backend that is up."""
    others = [step for step in steps if step["why"] == "outage" and step["model"] != starts]
    tried = [step for step in steps if step["model"] == starts and step["why"] != "shadow"][:1]
    return next(
        (str(step["model"]) for step in (*tried, *others) if any(map(_may_ask, step["backends"]))), None
    )


def _may_ask(backend: Way) -> bool:
    """Whether a backend can take the request and is not known to be out; a service has no server now."""
    return bool(backend["takes"] and backend["state"] not in ("down", "sick") and not backend["discover"])


def _takes(step: Way) -> bool:
    return any(backend["takes"] for backend in step["backends"])


def _is_one(step: Way) -> bool:
    return bool(step["generations"] == 1)


def _step(
    settings: config.Config, request: ChatRequest, model: config.ModelSettings, why: str, live: Live | None
) -> Way:
    backends = [one for backend in settings.backends_of(model) for one in _servers(backend, live)]
    alone = request.n == 1 or all("n" in DIALECTS[one.dialect].honours for one in backends)
    state: Mapping[tuple[str, str], str] = live or defaultdict(lambda: "unknown")
    return {
        "model": model.name,
        "why": why,
        "balance": model.balance,
        "generations": 1 if alone else request.n,
        "waiting": state.get((model.name, "waiting"), "unknown"),
        "backends": [
            {
                "name": one.name,
                "dialect": one.dialect,
                "discover": one.discover,
                "state": state.get((one.name, "state"), "unknown"),
                "in_flight": state.get((one.name, "in_flight"), "unknown"),
                "slots": one.slots,
                "weight": one.weight,
                "timeouts": settings.timeouts_for(model, one).model_dump(),
                **_translated(request if alone else request.single(), model, one),
            }
            for one in backends
        ],
    }


def _servers(backend: config.BackendSettings, live: Live | None) -> list[config.BackendSettings]:
    """A service as the servers that the running gateway knows of it; as itself where there are none."""
    if backend.discover is None or live is None:
        return [backend]
    names = [config.member_name(backend.name, number) for number in range(backend.max_discovered)]
    there = [name for name in names if (name, "state") in live]
    return [backend.model_copy(update={"name": name, "discover": None}) for name in there] or [backend]


def _translated(request: ChatRequest, model: config.ModelSettings, backend: config.BackendSettings) -> Way:
    """What the backend would be sent and what of the request is lost there, or why it cannot take it."""
    try:
        sent = DIALECTS[backend.dialect].ask(request, profile(backend, model), stream=request.stream)
    except BadRequest as error:
        refusal = {"status": error.row.status, "code": error.code, "message": error.message}
        return {"takes": False, "refusal": refusal}
    return {
        "takes": True,
        "path": backend.calls.at(sent.path),
        "streams": sent.streams,
        "prompt_tokens": sent.prompt_tokens,
        "output_tokens": sent.budget,
        "ignored": list(sent.ignored),
    }


# --- as text ---------------------------------------------------------------------------------------

_WHY = {
    "asked": "asked for",
    "canary": "its canary",
    "shadow": "its shadow: gets copies, whose answers are dropped",
    "context": "if the chat is too long for the models before",
    "outage": "if the models before cannot answer",
}


def told(way: Way) -> str:
    """The way as lines for people."""
    kind = "a stream" if way["stream"] else "a whole answer"
    start = f"begins at {way['starts']}" if way["starts"] else "is refused"
    if way["down"]:
        start = "is refused now (503 no_backend): no backend that could take it is up"
    lines = [f"{way['asked']}, {kind}: {start}", *_split_lines(way)]
    for place, step in enumerate(way["steps"], 1):
        lines += ["", f"{place}. {step['model']} ({_WHY[step['why']]})", *_step_lines(step, way["state"])]
    queue, retries = way["queue"], way["retries"]
    share = f"{retries['budget']:.0%} of the requests and {retries['least']:g} a second"
    lines += [
        "",
        f"queue: at most {queue['timeout']:g} s for all waits together, {queue['length']} requests a model",
        f"tries: {retries['attempts']} of each model, repeats at most {share}",
    ]
    if way["state"] == "unknown":
        lines.append("states: unknown, as no running gateway was asked or answered")
    return "\n".join(lines)


def _split_lines(way: Way) -> Iterator[str]:
    canary, shadow = way["canary"], way["shadow"]
    if canary is not None:
        this = {True: "this one does", False: "this one does not", None: "of this one, chance decides"}
        yield (
            f"canary: {canary['share']:.1%} of the conversations go to {canary['model']}; "
            f"{this[canary['falls']]}, unless {SESSION} says otherwise"
        )
    if shadow is not None:
        yield (
            f"shadow: {shadow['share']:.1%} of the requests are copied to {shadow['model']}, "
            f"{shadow['at_once']} at a time, {shadow['timeout']:g} s each at most"
        )


def _step_lines(step: Way, way_state: str) -> Iterator[str]:
    many = f", {step['generations']} generations" if step["generations"] > 1 else ""
    waiting = f", {step['waiting']} waiting" if step["waiting"] != "unknown" else ""
    yield f"   of the free backends: {step['balance']}{many}{waiting}"
    for one in step["backends"]:
        yield f"   - {one['name']} ({one['dialect']}): {_state_of(one, live=way_state == 'live')}"
        yield from (f"     {line}" for line in _backend_lines(one))


def _state_of(one: Way, *, live: bool) -> str:
    if one["discover"]:
        known = "; none is known now" if live else ""
        return f"the servers that DNS names ({one['discover']}), {one['slots']} slots each{known}"
    if one["state"] == "unknown":
        return f"{one['slots']} slots"
    return f"{one['state']}, {one['in_flight']} of {one['slots']} slots taken"


def _backend_lines(one: Way) -> Iterator[str]:
    if not one["takes"]:
        refusal = one["refusal"]
        yield f"cannot take it: {refusal['status']} {refusal['code'] or ''}: {refusal['message']}"
        return
    manner = "streams" if one["streams"] else "answers whole"
    length = f", answer of {one['output_tokens']} at most" if one["output_tokens"] else ""
    yield f"POST {one['path']}, {manner}; prompt of about {one['prompt_tokens']} tokens{length}"
    limits = one["timeouts"]
    silent = "" if one["streams"] else " (not used: it is silent until it has finished)"
    yield (
        f"time-outs: connect {limits['connect']:g} s, first token {limits['first_token']:g} s, "
        f"between tokens {limits['between_tokens']:g} s{silent}, total {limits['total']:g} s"
    )
    if one["ignored"]:
        yield f"loses: {', '.join(one['ignored'])}"
