"""`python -m tests.bench.reloads`: reloads and discovery while requests wait wherever a request can wait.

RELOADS (1000) says how often the configuration changes. Before each change requests wait for a slot of their
own model, of a fallback, of a canary, for several choices side by side, and of a model whose servers DNS
names; answers are copied to a shadow. Each change adds, removes or replaces backends. The exit status is 1
when a slot is still taken after the requests have ended, or when a request failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.config import Config, parse
from gateway.simulator import Options, Simulator
from tests.bench.__main__ import prepared, say
from tests.bench.own import number
from tests.support.faulty import closed_port
from tests.support.nameserver import NameServer, nameserver
from tests.support.site import Site, opened
from tests.support.stack import UNPROBED, wait_until

NAME = "cards.models.svc"
HOSTS = ("127.0.0.2", "127.0.0.3")
ANSWER = "春眠不觉晓"
SPEED = 250.0
"""Characters a second: an answer takes 20 ms."""
EACH = 3
"""Requests for each model in each round; no model has as many slots."""
DEAD = "falls"
"""The model without a backend that is up: its requests fail where its fallback is not configured."""
PATIENCE = 20.0
"""Seconds after which nothing is waited for any more."""

CARDS: Mapping[str, tuple[str, str]] = {
    "own-0": ("own", "chatglm2"),
    "own-1": ("own", "chatglm2"),
    "own-2": ("own", "chatglm"),
    "spare-0": ("spare", "chatglm2"),
    "spare-1": ("spare", "chatglm2"),
    "spare-2": ("spare", "glm4"),
    "trial-0": ("trial", "chatglm2"),
    "trial-1": ("trial", "chatglm2"),
    "many-0": ("many", "chatglm2-openai"),
    "many-1": ("many", "chatglm2-openai"),
    "many-2": ("many", "chatglm3"),
    "copy-0": ("copy", "chatglm2"),
    "copy-1": ("copy", "chatglm2"),
    "steady-0": ("steady", "chatglm2"),
}
"""Backends by name: the model each serves, and its dialect."""
ASKED: Mapping[str, dict[str, Any]] = {
    "own": {},
    "falls": {},
    "steady": {},
    "many": {"n": 2},
    "found": {},
}
"""Models that are asked, and what their requests have besides: `falls` has a dead backend and a fallback."""


def drawn(chance: random.Random) -> tuple[set[str], bool]:
    """The cards of one configuration, one for each model at least; and whether it has canary and fallback."""
    models: dict[str, list[str]] = {}
    for card, (model, _) in CARDS.items():
        models.setdefault(model, []).append(card)
    cards = {
        card for names in models.values() for card in chance.sample(names, chance.randint(1, len(names)))
    }
    return cards, chance.random() < 0.8


@dataclass
class Course:
    """How it went."""

    reloads: int = 0
    waiting: Counter[str] = field(default_factory=Counter)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    leaked: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    found: int = 0
    """How often the set of servers that DNS names changed."""

    def faults(self) -> list[str]:
        """What is wrong; empty where all is well."""
        said = [f"{count} slots of {name} are still taken" for name, count in self.leaked.items()]
        said += [
            f"{count} requests of {model} ended with {status}"
            for (model, status), count in self.statuses.items()
            if status != httpx.codes.OK and (model, status) != (DEAD, httpx.codes.SERVICE_UNAVAILABLE)
        ]
        if self.crashes:
            said.append(f"{self.crashes} unexpected exceptions in the log")
        if self.reloads and not self.waiting.total():
            said.append("no request waited during a reload")
        return said

    def figures(self) -> str:
        """What was seen, in one line."""
        waited = ", ".join(f"{model} {count}" for model, count in sorted(self.waiting.items()))
        good = sum(count for (_, status), count in self.statuses.items() if status == httpx.codes.OK)
        return (
            f"{self.reloads} reloads and {self.found} discoveries with requests waiting ({waited}); "
            f"{good} of {self.statuses.total()} answered; slots leaked: {self.leaked.total()}"
        )


class Ground:
    """Simulated servers, a name server, and a gateway over some of them."""

    def __init__(self, dead: str, dns: NameServer, port: int, urls: Mapping[str, str]) -> None:
        self._dead = dead
        self.dns = dns
        self._port = port
        self._urls = urls
        self.here: Site
        self.http: httpx.AsyncClient

    def settings(self, cards: set[str], *, beside: bool) -> Config:
        """A configuration over these cards; `beside`: with the canary, the fallback and the shadow."""
        tables = [(name, self._urls[name], *CARDS[name], "") for name in CARDS if name in cards]
        tables += [
            ("falls-0", self._dead, "falls", "chatglm2", ""),
            ("found", f"http://{NAME}:{self._port}", "found", "chatglm2", 'discover = "dns4"'),
        ]
        text = "".join(map(_table, tables)) + (_BESIDE if beside else "") + UNPROBED + self.dns.toml()
        return parse(_LISTEN + text, file="reloads.toml", folder=Path(), environ={})

    @property
    def waiting(self) -> dict[str, int]:
        """Requests that wait, by the model in whose queue they do."""
        depth = self.here.gateway.dispatcher.queue_depth
        return {model: depth(model) for model in ("own", "spare", "steady", "trial", "many", "found")}

    def taken(self) -> dict[str, int]:
        """Slots that are taken, by backend."""
        scheduler = self.here.gateway.dispatcher._scheduler
        return {name: state.busy for name, state in scheduler._backends.items() if state.busy}

    async def ask(self, model: str, *, stream: bool) -> tuple[str, int]:
        """Ask once and read all of the answer; the model and the status, 599 for a stream that broke off."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "x"}],
            "stream": stream,
            **ASKED[model],
        }
        answer = await self.http.post("/v1/chat/completions", json=body)
        broken = stream and answer.status_code == httpx.codes.OK and "data: [DONE]" not in answer.text
        return model, 599 if broken else answer.status_code


def _table(backend: tuple[str, str, str, str, str]) -> str:
    name, url, model, dialect, more = backend
    lines = [f'name = "{name}"', f'url = "{url}"', f'dialect = "{dialect}"', f'models = ["{model}"]', more]
    return "\n".join(["[[backends]]", *lines, ""])


_LISTEN = '[server]\nlisten = "127.0.0.1:0"\n[admin]\nlisten = "127.0.0.1:0"\n'
_BESIDE = """
[[models]]
name = "falls"
fallbacks = ["spare"]
[[models]]
name = "steady"
canary = { model = "trial", share = 1.0 }
[[models]]
name = "own"
shadow = { model = "copy", share = 1.0 }
"""


@contextlib.asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """Everything started."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        dead, dns = stack.enter_context(closed_port()), await enter(nameserver())
        urls = {}
        for name, (_, dialect) in CARDS.items():
            urls[name] = (await enter(Simulator(Options(dialect=dialect, reply=ANSWER, speed=SPEED)))).url
        port = 0
        for host in HOSTS:
            options = Options(dialect="chatglm2", host=host, port=port, reply=ANSWER, speed=SPEED)
            port = (await enter(Simulator(options))).port
        one = Ground(dead, dns, port, urls)
        dns.zone = {(NAME, "A"): [HOSTS[0]]}
        one.here = await enter(opened(one.settings(set(CARDS), beside=True)))
        one.here.gateway.start()
        limits = httpx.Limits(max_connections=100)
        one.http = await enter(
            httpx.AsyncClient(base_url=one.here.url, trust_env=False, timeout=PATIENCE, limits=limits)
        )
        await wait_until(
            lambda: "found-0" in one.here.gateway.fleet or len(one.here.gateway.fleet) > len(CARDS) + 1
        )
        yield one


async def reloads(count: int, tell: Callable[[str], None], seed: int = 1729) -> Course:
    """Change the configuration so often while requests wait."""
    course, chance = Course(), random.Random(seed)
    async with ground() as one:
        while course.reloads < count and not course.leaked:
            await _round(one, course, chance)
            if course.reloads % 100 == 0:
                tell(course.figures())
        course.crashes = sum(line["event"] == "crash" for line in one.here.lines)
    return course


async def _round(one: Ground, course: Course, chance: random.Random) -> None:
    """Let requests wait, change everything under them, and see that nothing is left."""
    calls = [
        asyncio.ensure_future(one.ask(model, stream=number % 2 == 0))
        for number in range(EACH)
        for model in ASKED
    ]
    with contextlib.suppress(TimeoutError):  # some rounds have cards enough
        await wait_until(lambda: sum(map(bool, one.waiting.values())) > 1, 0.1)
    course.waiting.update(one.waiting)
    named = chance.choice([[HOSTS[0]], [HOSTS[1]], list(HOSTS)])
    if named != one.dns.zone[NAME, "A"]:
        course.found += 1
        one.dns.zone = {(NAME, "A"): named}
    cards, beside = drawn(chance)
    one.here.gateway.reconfigure(one.settings(cards, beside=beside))
    course.reloads += 1
    try:
        async with asyncio.timeout(PATIENCE):
            course.statuses.update(await asyncio.gather(*calls))
        await wait_until(lambda: not one.taken() and not len(one.here.gateway.shadow), PATIENCE)
    except TimeoutError:
        course.leaked.update(one.taken() or {"nobody": 1})


def main() -> int:
    """The program; gives its exit status."""
    prepared()
    course = asyncio.run(reloads(int(number(os.environ, "RELOADS", 1000)), say))
    say(course.figures())
    faults = course.faults()
    say("\n".join(faults) if faults else "kept: all of it")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
