"""The rule about the paths of backends: the dialect must have them."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from gateway.config.backend import BackendSettings
from gateway.config.call_urls import STREAMING, is_native, names_openai
from gateway.config.fault import KeyPath, ValueProblem
from gateway.config.partial import PartialConfig


def speakable(draft: PartialConfig) -> Iterator[ValueProblem]:
    """Complain about paths that servers of the backend's dialect do not have."""
    for index, backend in enumerate(draft.config.backends):
        path: KeyPath = ("backends", index)
        if not any(draft.is_broken_at(*path, key) for key in ("url", "path", "dialect")):
            yield from _unspeakable(backend, urlsplit(backend.url), path)


def _unspeakable(backend: BackendSettings, parts: SplitResult, path: KeyPath) -> Iterator[ValueProblem]:
    written = parts.path.rstrip("/")
    if backend.path is None and is_native(backend.dialect) and names_openai(parts.path):
        yield ValueProblem(
            (*path, "url"),
            f"ends as the address of an OpenAI-like server does, but servers of dialect {backend.dialect} "
            f"answer at /; leave {written} out, or choose another dialect",
        )
    if backend.path is not None and written.endswith(("/chat/completions", *STREAMING)):
        yield ValueProblem((*path, "path"), "the url names an endpoint already; keep one of them")
    if backend.path and backend.dialect == "chatglm-stream" and not backend.path.endswith(STREAMING):
        yield ValueProblem(
            (*path, "path"), 'must end in "/chat" or "/stream"; the other one is found beside it'
        )
