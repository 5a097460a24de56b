"""What clients' paths mean, and what is said of those that mean nothing here."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.paths import LONGEST_SHOWN, nothing_at, shown, tidied

SERVED = [("POST", "/"), ("POST", "/v1/chat/completions"), ("GET", "/v1/models")]


@given(st.text(alphabet="/v1chatompleinsr.%;\n", max_size=80))
def test_tidied_path_settles_and_never_loses_a_dot_segment(path: str) -> None:
    raw, path = path.encode(), unquote(path)
    once = tidied(path, raw)
    assert tidied(once, raw) == once
    assert once.count("..") == path.count("..")
    assert b"%2f" not in raw.lower() or once == path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/embeddings", "/embeddings", "/v1/responses", "/v1/responses/resp_1", "/v1/messages",
        "/v1/messages/count_tokens", "/v1/completions", "/completions", "/v1/audio/speech",
        "/v1/images/generations", "/v1/files", "/v1/rerank", "/v2/rerank", "/rerank",
        "/v1/engines/m/completions", "/openai/responses", "/openai/embeddings",
        "/api/chat", "/api/generate", "/api/tags", "/openai/deployments/m/embeddings",
        "/openai/deployments/m/completions", "/v1beta/models/gemini-pro:generateContent",
    ],
)  # fmt: skip
def test_known_endpoint_of_other_apis_is_not_served_yet(path: str) -> None:
    assert nothing_at(path, SERVED).startswith(f"{path} is not served by this gateway yet. ")


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        (b"/v1/v1/models/%E6%A8%A1/", "/v1/models/模"),
        (b"/v1//models/a%20b", "/v1/models/a b"),
        (b"/v1/v1/models/a%2Fb", "/v1/v1/models/a/b"),
        (b"/v1/%2e%2e/metrics/", "/v1/../metrics"),
        (b"/v1/models/%zz/", "/v1/models/%zz"),
    ],
)
def test_what_is_encoded_is_decoded_after_the_path_is_tidied(raw: bytes, meant: str) -> None:
    assert tidied(unquote(raw.decode()), raw) == meant
    assert tidied(meant, raw) == meant


@pytest.mark.parametrize("path", ["/v1/embedding", "/nowhere", "/v1/../metrics", "/admin"])
def test_other_paths_get_the_nearest(path: str) -> None:
    assert nothing_at(path, SERVED) in (
        f"There is nothing at {path}. The nearest is POST /v1/chat/completions.",
        f"There is nothing at {path}. The nearest is GET /v1/models.",
    )


def test_doubled_slashes_alone_are_near_the_native_door() -> None:
    assert nothing_at("//", SERVED) == "There is nothing at //. The nearest is POST /."


def test_deployment_without_a_name_is_no_endpoint_of_another_api() -> None:
    assert nothing_at("/openai/deployments/chat/completions", SERVED).startswith("There is nothing at")


@given(st.text(max_size=400))
def test_path_is_shown_as_short_plain_ascii(path: str) -> None:
    text = shown(path)
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set(' "\\<>\r\n')
    assert len(text) <= LONGEST_SHOWN
