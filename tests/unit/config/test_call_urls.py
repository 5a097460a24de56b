"""What is called for a backend's address, however people write it."""

from __future__ import annotations

import pytest

from gateway.config import DIALECTS, BackendSettings
from gateway.config.call_urls import CallUrls, endpoints_of
from gateway.dialects import DIALECTS as SPOKEN
from gateway.dialects.base import Profile
from gateway.formats import openai
from gateway.upstream.backend import probe_path

H = "http://h:1"
ZAI = "https://open.bigmodel.cn/api/paas/v4"


def backend(url: str, dialect: str, **more: object) -> BackendSettings:
    return BackendSettings.model_validate({"name": "a", "url": url, "dialect": dialect} | more)


def called(url: str, dialect: str, path: str | None = None) -> tuple[list[str], str]:
    """The URLs of the POSTs, and that of the probe."""
    one = backend(url, dialect, path=path)
    posts = [one.calls.url(endpoint) for endpoint in endpoints_of(dialect)]
    return posts, one.calls.origin + probe_path(one)


@pytest.mark.parametrize(
    ("url", "post", "probe"),
    [
        (H, f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}//v1", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/chat/completions", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/chat/completions/", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/completions", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/models", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/chat", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/models/m", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/embeddings", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/responses", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/messages", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/chat/completions/chat/completions", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/Chat/Completions", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/V1", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/V1/chat/completions", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/v1", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/v1/chat/completions", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/docs", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/docs/", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/openapi.json", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/health", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/v1/health", f"{H}/v1/chat/completions", f"{H}/v1/models"),
        (f"{H}/gpu-0/docs", f"{H}/gpu-0/v1/chat/completions", f"{H}/gpu-0/v1/models"),
        (f"{H}/chat/completions", f"{H}/chat/completions", f"{H}/models"),
        (f"{H}/v3", f"{H}/v3/chat/completions", f"{H}/v3/models"),
        (ZAI, f"{ZAI}/chat/completions", f"{ZAI}/models"),
        (f"{ZAI}/", f"{ZAI}/chat/completions", f"{ZAI}/models"),
        (f"{ZAI}/chat/completions", f"{ZAI}/chat/completions", f"{ZAI}/models"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai/chat/completions", "https://h/v1beta/openai/models"),
        (f"{H}/gpu-0", f"{H}/gpu-0/v1/chat/completions", f"{H}/gpu-0/v1/models"),
        (f"{H}/gpu-0/v1", f"{H}/gpu-0/v1/chat/completions", f"{H}/gpu-0/v1/models"),
        ("http://[::1]:1/v1", "http://[::1]:1/v1/chat/completions", "http://[::1]:1/v1/models"),
    ],
)  # fmt: skip
def test_openai_address_leads_to_the_same_endpoint_however_it_is_written(
    url: str, post: str, probe: str
) -> None:
    assert called(url, "openai") == ([post], probe)


@pytest.mark.parametrize(
    ("url", "probe"),
    [
        (H, f"{H}/health"),
        (f"{H}/v1", f"{H}/health"),
        (f"{H}/v1/chat/completions", f"{H}/health"),
        (f"{H}/gpu-0/v1", f"{H}/gpu-0/health"),
        (f"{H}/api/v4", f"{H}/api/health"),
    ],
)
@pytest.mark.parametrize("dialect", ["chatglm3", "glm4"])
def test_probe_outside_the_api_is_asked_beside_it(url: str, probe: str, dialect: str) -> None:
    assert called(url, dialect)[1] == probe


@pytest.mark.parametrize(
    ("url", "post", "probe"),
    [
        (H, f"{H}/", f"{H}/openapi.json"),
        (f"{H}/", f"{H}/", f"{H}/openapi.json"),
        (f"{H}/chat", f"{H}/chat", f"{H}/openapi.json"),
        (f"{H}/chat/", f"{H}/chat/", f"{H}/chat/openapi.json"),
        (f"{H}/gpu-0/", f"{H}/gpu-0/", f"{H}/gpu-0/openapi.json"),
        (f"{H}/api/chat", f"{H}/api/chat", f"{H}/api/openapi.json"),
    ],
)
@pytest.mark.parametrize("dialect", ["chatglm", "chatglm2"])
def test_native_address_is_called_as_it_is_written(url: str, post: str, probe: str, dialect: str) -> None:
    assert called(url, dialect) == ([post], probe)


@pytest.mark.parametrize("tail", ["", "/", "/chat", "/stream", "/stream/"])
def test_streaming_address_may_name_either_endpoint(tail: str) -> None:
    assert called(f"{H}{tail}", "chatglm-stream") == ([f"{H}/stream", f"{H}/chat"], f"{H}/")


@pytest.mark.parametrize(
    ("url", "dialect", "path", "posts", "probe"),
    [
        (H, "openai", "/api/paas/v4/chat/completions", [f"{H}/api/paas/v4/chat/completions"],
         f"{H}/api/paas/v4/models"),
        (f"{H}/api", "openai", "/ask?api-version=1", [f"{H}/api/ask?api-version=1"], f"{H}/api/v1/models"),
        (f"{H}/v4", "openai", "/chat/completions?x=1", [f"{H}/v4/chat/completions?x=1"], f"{H}/v4/models"),
        (f"{H}/v1", "glm4", "/other", [f"{H}/v1/other"], f"{H}/health"),
        (H, "chatglm2", "/v1/chat/completions", [f"{H}/v1/chat/completions"],
         f"{H}/v1/chat/openapi.json"),
        (H, "chatglm-stream", "/api/chat", [f"{H}/api/stream", f"{H}/api/chat"], f"{H}/api/"),
    ],
)  # fmt: skip
def test_path_that_is_given_is_called_as_it_is(
    url: str, dialect: str, path: str, posts: list[str], probe: str
) -> None:
    assert called(url, dialect, path) == (posts, probe)


@pytest.mark.parametrize(
    ("url", "asked"), [(f"{H}/v1", "/ping"), (H, "/ping"), (f"{H}/gpu-0/v1", "/gpu-0/ping")]
)
def test_configured_probe_lies_beside_the_api(url: str, asked: str) -> None:
    assert probe_path(backend(url, "openai", health={"path": "/ping"})) == asked


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_asks_for_an_endpoint_that_is_known(dialect: str) -> None:
    request = openai.read_chat(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    asked = [SPOKEN[dialect].ask(request, Profile("m"), stream=stream).path for stream in (True, False)]
    assert set(asked) == set(endpoints_of(dialect))


def test_bare_server_has_the_original_paths() -> None:
    assert CallUrls.bare(H).url("/v1/chat/completions") == f"{H}/v1/chat/completions"
