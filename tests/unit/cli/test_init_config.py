"""What a model server seems to be, from cheap GETs alone, and the file that is written for it."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from gateway.cli import init_config
from gateway.config import DIALECTS, ConfigError
from gateway.simulator import Options, Simulator
from tests.support.peer import answering, peer

MODELS = {"openai": "simulated-openai"}


@pytest.mark.parametrize("tail", ["", "/"])
@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name != "chatglm3-native"])
async def test_server_is_known_by_what_it_answers(dialect: str, tail: str) -> None:
    async with Simulator(Options(dialect=dialect)) as server:
        model = "ChatGLM-6B" if dialect == "chatglm" else None
        found = await asyncio.to_thread(init_config.examined, server.url + tail, model)
        assert found.dialect == dialect
        assert (found.model or "") in (model, "", init_config.USUAL_MODELS.get(dialect), MODELS.get(dialect))
        assert all(one.method == "GET" for one in server.requests), "nothing may be generated"


async def test_base_url_of_an_openai_server_is_examined_too() -> None:
    async with Simulator(Options(dialect="openai")) as server:
        for tail in ("/v1", "/v1/chat/completions"):
            found = await asyncio.to_thread(init_config.examined, server.url + tail)
            assert (found.dialect, found.model) == ("openai", "simulated-openai")


async def test_the_two_generations_of_api_py_look_alike_and_that_is_said() -> None:
    async with Simulator(Options(dialect="chatglm")) as server:
        found = await asyncio.to_thread(init_config.examined, server.url)
    assert found.dialect == "chatglm2"
    assert "say --dialect chatglm" in found.why


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ('{"data": [{"id": "qwen", "owned_by": "llamacpp"}]}', "openai"),
        ('{"data": [{"id": "glm-4", "owned_by": "vllm"}]}', "openai"),
        ('{"data": "x"}', None),
        ("[]", None),
        ("<html>", None),
        ("[" * 100_000, None),
        ('{"paths": 5}', None),
        ('{"paths": {"/": 5}}', None),
    ],
)
async def test_strange_answers_are_no_crash(body: str, dialect: str | None) -> None:
    raw = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    async with peer(answering(raw, end="close")) as here:
        found = await asyncio.to_thread(init_config.examined, here.url, None, 2.0)
    assert found.dialect == dialect


@pytest.mark.parametrize(
    ("status", "told"),
    [
        pytest.param("401 Unauthorized", "without a key (status 401)", id="key-wanted"),
        pytest.param("403 Forbidden", "without a key (status 403)", id="forbidden"),
        pytest.param("302 Found", "sends elsewhere (status 302)", id="redirect"),
        pytest.param("307 Temporary Redirect", "sends elsewhere (status 307)", id="redirect-of-posts"),
        pytest.param("500 Oops", "not well (status 500)", id="failure"),
        pytest.param("503 Busy", "not well (status 503)", id="busy"),
        pytest.param("404 Not Found", "none of the endpoints", id="other-program"),
        pytest.param("200 OK", "none of the endpoints", id="web-page"),
    ],
)
async def test_a_server_that_answers_otherwise_is_not_said_to_be_away(status: str, told: str) -> None:
    page = "<html>a page</html>"
    head = f"HTTP/1.1 {status}\r\nconnection: close\r\nlocation: /login\r\ncontent-type: text/html\r\n"
    raw = f"{head}content-length: {len(page)}\r\n\r\n{page}".encode()
    async with peer(answering(raw, end="close")) as here:
        found = await asyncio.to_thread(init_config.examined, here.url)
    assert found.dialect is None
    assert told in found.why
    assert "is it running?" not in found.why


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\u202eb", "a\x9bb", "two words", "x" * 257, "a\nb"])
async def test_a_name_that_is_none_is_not_taken_over(name: str) -> None:
    body = json.dumps({"data": [{"id": name, "owned_by": "vllm"}]})
    raw = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    async with peer(answering(raw, end="close")) as here:
        found = await asyncio.to_thread(init_config.examined, here.url)
    assert (found.dialect, found.model) == ("openai", None)
    assert name not in found.why


async def test_a_server_behind_a_path_is_asked_there() -> None:
    requests: list[bytes] = []
    body = json.dumps({"data": [{"id": "qwen", "owned_by": "vllm"}]})
    raw = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    async with peer(answering(raw, end="close", requests=requests)) as here:
        found = await asyncio.to_thread(init_config.examined, f"{here.url}/llm/v1")
    assert (found.dialect, found.model) == ("openai", "qwen")
    assert requests[-1].startswith(b"GET /llm/v1/models ")


def test_nobody_there_is_told() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = init_config.examined(f"http://127.0.0.1:{closed.getsockname()[1]}", wait=0.5)
    assert found.dialect is None
    assert "is it running?" in found.why
    assert "no URL" in init_config.examined("127.0.0.1:8000").why


@pytest.mark.parametrize(
    ("url", "listen", "elsewhere"),
    [
        ("http://127.0.0.1:8000", None, True),
        ("http://localhost:8000/", None, True),
        ("http://0.0.0.0:8000", None, True),
        ("http://127.0.0.1:8001", None, False),
        ("http://gpu.example:8000", None, False),
    ],
)
def test_gateway_listens_beside_a_server_on_its_port(url: str, listen: str | None, elsewhere: bool) -> None:
    found = init_config.listening([url], listen)
    assert (found is not None) is elsewhere
    assert init_config.listening([url], "127.0.0.1:7") == "127.0.0.1:7"


def test_written_file_is_checked() -> None:
    text = init_config.written(init_config.tables(["http://h:1"], "chatglm", "m"), "127.0.0.1:8080")
    assert 'listen = "127.0.0.1:8080"' in text
    with pytest.raises(ConfigError):
        init_config.written(init_config.tables(["h:1"], "chatglm", "m"), None)
