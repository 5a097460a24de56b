"""Finds out what a model server speaks by asking it a few cheap GETs, and writes a first configuration.

Nothing here makes a server generate. What a server says of itself decides: the endpoints on its OpenAPI page
(FastAPI makes one for every server written with it) and its list of models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from gateway.cli.healthcheck import got, without_secrets
from gateway.config import Address, parse
from gateway.config.binding import obstacle
from gateway.config.call_urls import CHAT, calls_of

USUAL_MODELS: Mapping[str, str] = {
    "chatglm": "chatglm-6b",
    "chatglm2": "chatglm2-6b",
    "chatglm2-openai": "chatglm2-6b",
    "chatglm3": "chatglm3-6b",
    "chatglm3-native": "chatglm3-6b",
    "glm4": "glm-4-9b-chat",
    "glm4v": "glm-4v-9b",
    "chatglm-cpp": "chatglm2-6b",
    "chatglm-cpp-native": "chatglm2-6b",
    "chatglm-stream": "chatglm-6b",
}
"""The model that the original server of a dialect runs, where nothing else is known."""

WAIT = 3.0
"""Seconds for each answer; these servers answer nothing while they generate."""
_LONGEST_NAME = 256
_HERE = Path()
_PORTS = range(8080, 8100)


@dataclass(frozen=True, slots=True)
class DetectedServer:
    """What a server seems to be. `dialect` is None where nothing could be told; `why` is for people."""

    dialect: str | None
    model: str | None
    why: str


@dataclass(frozen=True, slots=True)
class _BareClient:
    """A backend of which the address alone is known."""

    url: str
    path: str | None = None
    dialect: str = "openai"


def examined(url: str, model: str | None = None, wait: float = WAIT) -> DetectedServer:
    """Ask the server at `url` what it is.

    `model` is the name it is known to serve, if any; `wait` is the limit for each answer, in seconds.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return DetectedServer(None, model, f'"{without_secrets(url)}" is no URL; write http://HOST:PORT')
    calls = calls_of(_BareClient(url))
    answered, text = got(calls.origin, calls.root + "/openapi.json", wait)
    status, listed = got(calls.origin, calls.probe("/v1/models"), wait)
    page, cards = _object(text), _object(listed)
    data, paths = cards.get("data"), _table(page.get("paths"))
    found = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
    if CHAT in paths or found:
        return _of_models(found, paths, model)
    if "/chat" in paths and "/stream" in paths:
        return DetectedServer("chatglm-stream", model, "it has /chat and /stream")
    if post := _table(_table(paths.get("/")).get("post")):
        return _native(post, model)
    return DetectedServer(None, model, _unknown(calls.origin, status or answered, wait))


def _of_models(
    cards: Sequence[Mapping[str, Any]], paths: Mapping[str, Any], model: str | None
) -> DetectedServer:
    """A server with OpenAI's endpoints: the first card of its list tells the official ChatGLM servers."""
    first = cards[0] if cards else {}
    name, owner = _name(first.get("id")), first.get("owned_by")
    dialect, why = "openai", f"it lists the model {name}" if name else "it has /v1/chat/completions"
    if owner == "owner" and paths:
        if "4v" in name.lower():
            dialect = "glm4v"
        elif name.startswith("glm-4"):
            dialect = "glm4"
        elif name.startswith("chatglm3"):
            dialect = "chatglm3"
        elif name == "gpt-3.5-turbo":
            dialect = "chatglm2-openai" if "root" in first else "chatglm-cpp"
    official = dialect != "openai"
    return DetectedServer(dialect, model or (USUAL_MODELS[dialect] if official else name or None), why)


def _name(value: object) -> str:
    """The name of a model as a server tells it; empty where it cannot be one, or could move a cursor."""
    name = str(value or "")
    fits = name.isprintable() and " " not in name and len(name) <= _LONGEST_NAME
    return name if fits else ""


def _native(post: Mapping[str, Any], model: str | None) -> DetectedServer:
    """A server whose one endpoint is `POST /`."""
    if str(post.get("operationId", "")).startswith("create_item"):
        if model and "chatglm-6b" in model.lower():
            return DetectedServer(
                "chatglm", model, "it has POST / as api.py has, and runs ChatGLM-6B by its name"
            )
        return DetectedServer(
            "chatglm2",
            model,
            "it has POST / as api.py has; if it runs ChatGLM-6B (v1), say --dialect chatglm",
        )
    return DetectedServer("chatglm-cpp-native", model, "it has POST / as chatglm.cpp's langchain_api has")


def _unknown(origin: str, status: int, wait: float) -> str:
    """Why nothing could be told: `status` is that of its answer, 0 where there was none."""
    if status in (401, 403):
        return (
            f"it answers, but lets nobody in without a key (status {status}): name the model as well"
            " (--model NAME), and give its key as api_key in the config file"
        )
    if 300 <= status < 400:
        return f"it sends elsewhere (status {status}): give the address that it leads to"
    if status >= 500:
        return f"it answers, but is not well (status {status})"
    if status:
        return "it answers, but has none of the endpoints of servers that are known here"
    place = urlsplit(origin).netloc
    return (
        f"nothing that is known here was answered at {place} within {wait:g} s; is it running? "
        "(while it generates, such a server answers nothing)"
    )


def _object(text: str) -> dict[str, Any]:
    try:
        return _table(json.loads(text or "null"))
    except (ValueError, RecursionError):
        return {}


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def listening(urls: Sequence[str], listen: str | None) -> str | None:
    """Where the data plane should listen: as told, else beside model servers that have the default port.

    None: the default will do.
    """
    if listen is not None:
        return listen
    found = [parts for parts in map(_split, urls) if parts is not None]
    taken = any(parts.port == 8000 and _is_local(parts.hostname) for parts in found)
    return f"127.0.0.1:{free_port()}" if taken else None


def _split(url: str) -> SplitResult | None:
    """The parts of a URL; None for what is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where the port is no number or out of range
    except ValueError:
        return None
    return parts


def names_user(url: str) -> bool:
    """Whether a URL holds a name or a password."""
    parts = _split(url)
    return parts is not None and "@" in parts.netloc


def _is_local(host: str | None) -> bool:
    return host == "0.0.0.0" or Address(host or "").is_local  # noqa: S104 - compared, not bound


def free_port() -> int:
    """Give the first free port from 8080 on; 8080 where none of twenty is."""
    return next((port for port in _PORTS if obstacle(Address("127.0.0.1", port)) is None), _PORTS[0])


def tables(urls: Sequence[str], dialect: str, model: str) -> list[dict[str, Any]]:
    """The `[[backends]]` of servers of one kind, named gpu-0, gpu-1 and so on."""
    return [
        {"name": f"gpu-{index}", "url": url, "dialect": dialect, "models": [model]}
        for index, url in enumerate(urls)
    ]


def written(backends: Sequence[Mapping[str, Any]], listen: str | None) -> str:
    """Write a config file with these backends. Raises ConfigError where it would not be a good one."""
    lines = ["# Made by `gateway init`. Every key is explained in docs/configuration.md.", ""]
    if listen is not None:
        lines += ["[server]", f"listen = {_text(listen)}", ""]
    for backend in backends:
        lines.append("[[backends]]")
        lines += [f"{key} = {_value(value)}" for key, value in backend.items()]
        lines.append("")
    text = "\n".join(lines)
    parse(text, file="the new file", folder=_HERE, environ={})
    return text


def _value(value: object) -> str:
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list) else _text(str(value))


def _text(value: str) -> str:
    return json.dumps(value.replace("$", "$$"), ensure_ascii=False)
