"""The rule about the paths of backends: the dialect must have them."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from gateway.config.backend import Backend
from gateway.config.calls import STREAMING, is_native, names_openai
from gateway.config.draft import Draft
from gateway.config.fault import Complaint, KeyPath


def speakable(draft: Draft) -> Iterator[Complaint]:
    """Complain about paths that servers of the backend's dialect do not have."""
    for index, backend in enumerate(draft.config.backends):
        path: KeyPath = ("backends", index)
        if not any(draft.is_broken_at(*path, key) for key in ("url", "path", "dialect")):
            yield from _unspeakable(backend, urlsplit(backend.url), path)


def _unspeakable(backend: Backend, parts: SplitResult, path: KeyPath) -> Iterator[Complaint]:
    written = parts.path.rstrip("/")
    if backend.path is None and is_native(backend.dialect) and names_openai(parts.path):
        yield Complaint(
            (*path, "url"),
            f"ends as the address of an OpenAI-like server does, but servers of dialect {backend.dialect} "
            f"answer at /; leave {written} out, or choose another dialect",
        )
    if backend.path is not None and written.endswith(("/chat/completions", *STREAMING)):
        yield Complaint((*path, "path"), "the url names an endpoint already; keep one of them")
    if backend.path and backend.dialect == "chatglm-stream" and not backend.path.endswith(STREAMING):
        yield Complaint((*path, "path"), 'must end in "/chat" or "/stream"; the other one is found beside it')
