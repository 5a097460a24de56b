"""Bad bodies over a real gateway: refused with 400 that names the field, and never passed on."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from gateway.simulator import Options
from tests.support.stack import Stack, threaded

ECHO = Options(dialect="chatglm2", brain="echo")
JSON = {"content-type": "application/json"}
PLAIN: dict[str, Any] = {
    "trust_env": False,
    "timeout": 30,
    "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # never used; the default reads all authorities
}
QUESTION = [{"role": "user", "content": "hi"}]


def raw(text: str) -> bytes:
    """A body whose JSON is written out, after the members every request has."""
    return b'{"model":"m","messages":[{"role":"user","content":"hi"}],' + text.encode() + b"}"


def call(content: str) -> bytes:
    """A body whose question is this JSON text, quotes included."""
    return b'{"model":"m","messages":[{"role":"user","content":' + content.encode() + b"}]}"


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": QUESTION, **fields}).encode()


@pytest.fixture(scope="module")
def shared() -> Iterator[Stack]:
    """One gateway for all requests that leave no trace in it."""
    with threaded(ECHO) as running:
        yield running


@pytest.fixture
def one(shared: Stack) -> Stack:
    """The same, its server's memory wiped."""
    shared.only.reset()
    return shared


def post(
    one: Stack, body: bytes | Iterator[bytes], path: str = "/v1/chat/completions", **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(one.url + path, content=body, headers=JSON | named, **PLAIN)


def heard(reply: httpx.Response) -> dict[str, Any]:
    """What the echoing model was handed."""
    found: dict[str, Any] = json.loads(reply.json()["choices"][0]["message"]["content"])
    return found


def refusal(reply: httpx.Response) -> dict[str, Any]:
    """The envelope's inside, checked for its shape."""
    body = reply.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error"
    error: dict[str, Any] = body["error"]
    return error


DEEP = "[" * 201 + "]" * 201
DEEPEST = "[" * 100_000 + "]" * 100_000
MANY_KEYS = ",".join(f'"k{number}":0' for number in range(100_000))
LONG = "1" + "0" * 4999

REFUSED = [
    # Nesting and size of numbers.
    pytest.param(raw(f'"metadata":{DEEP}'), "metadata", id="depth-201"),
    pytest.param(raw(f'"metadata":{DEEPEST}'), None, id="depth-100000"),
    pytest.param(DEEPEST.encode(), None, id="nothing-but-depth"),
    pytest.param(b"[" * 100_000, None, id="depth-unclosed"),
    pytest.param(raw('"temperature":NaN'), "temperature", id="nan"),
    pytest.param(raw('"temperature":Infinity'), "temperature", id="infinity"),
    pytest.param(raw('"top_p":-Infinity'), "top_p", id="minus-infinity"),
    pytest.param(raw('"temperature":1e999'), "temperature", id="1e999"),
    pytest.param(raw('"metadata":{"x":[1,NaN]}'), "metadata.x[1]", id="nan-in-an-unknown-field"),
    pytest.param(raw(f'"max_tokens":{LONG}'), "max_tokens", id="5000-digits"),
    pytest.param(raw(f'"temperature":{LONG}'), "temperature", id="5000-digits-for-a-float"),
    pytest.param(raw(f'"seed":-{LONG}'), "seed", id="5000-digits-negative"),
    pytest.param(raw(f'"max_tokens":{2**63}'), "max_tokens", id="2**63"),
    pytest.param(raw(f'"max_completion_tokens":{2**63}'), "max_completion_tokens", id="2**63-new-name"),
    # Types.
    pytest.param(chat(max_tokens=True), "max_tokens", id="bool-for-int"),
    pytest.param(chat(n=True), "n", id="bool-for-n"),
    pytest.param(chat(seed=False), "seed", id="bool-for-seed"),
    pytest.param(chat(temperature=True), "temperature", id="bool-for-float"),
    pytest.param(chat(max_tokens=1.5), "max_tokens", id="float-for-int"),
    pytest.param(chat(max_tokens=16.0), "max_tokens", id="whole-float-for-int"),
    pytest.param(chat(n=1.0), "n", id="float-for-n"),
    pytest.param(chat(max_tokens="5"), "max_tokens", id="text-for-int"),
    pytest.param(chat(temperature="0.5"), "temperature", id="text-for-float"),
    pytest.param(chat(stream=1), "stream", id="int-for-bool"),
    pytest.param(chat(stream="true"), "stream", id="text-for-bool"),
    pytest.param(chat(stream_options=[1]), "stream_options", id="list-for-object"),
    pytest.param(chat(stream_options={"include_usage": 1}), "stream_options.include_usage", id="deep-type"),
    pytest.param(chat(stop=5), "stop", id="number-for-stop"),
    pytest.param(chat(stop=["a", 5]), "stop[1]", id="number-among-stops"),
    pytest.param(chat(stop=["a"] * 5), "stop", id="five-stops"),
    pytest.param(chat(stop=""), "stop", id="empty-stop"),
    pytest.param(chat(tools={}), "tools", id="object-for-tools"),
    pytest.param(chat(tools=[{"type": "function", "function": {}}]), "tools[0].function.name", id="nameless"),
    pytest.param(chat(logit_bias={"5": "x"}), "logit_bias.5", id="text-for-bias"),
    pytest.param(chat(response_format="json"), "response_format", id="text-for-format"),
    pytest.param(chat(model=5), "model", id="number-for-model"),
    pytest.param(chat(model=["m"]), "model", id="list-for-model"),
    # Ranges.
    pytest.param(chat(max_tokens=0), "max_tokens", id="no-tokens"),
    pytest.param(chat(max_tokens=-2), "max_tokens", id="fewer-than-no-tokens"),
    pytest.param(chat(temperature=2.1), "temperature", id="too-hot"),
    pytest.param(chat(temperature=-0.1), "temperature", id="too-cold"),
    pytest.param(chat(top_p=1.1), "top_p", id="top_p-above-1"),
    pytest.param(chat(n=0), "n", id="no-choice"),
    pytest.param(chat(n=129), "n", id="too-many-choices"),
    pytest.param(chat(presence_penalty=2.5), "presence_penalty", id="penalty"),
    # Messages.
    pytest.param(b'{"model":"m"}', "messages", id="no-messages"),
    pytest.param(chat(messages=None), "messages", id="null-messages"),
    pytest.param(chat(messages=[]), "messages", id="empty-messages"),
    pytest.param(chat(messages={}), "messages", id="object-for-messages"),
    pytest.param(chat(messages="hi"), "messages", id="text-for-messages"),
    pytest.param(chat(messages=[1]), "messages[0]", id="number-for-a-message"),
    pytest.param(chat(messages=[{}]), "messages[0].role", id="no-role"),
    pytest.param(chat(messages=[{"role": "robot", "content": "x"}]), "messages[0].role", id="unknown-role"),
    pytest.param(chat(messages=[{"role": "user"}]), "messages[0].content", id="no-content"),
    pytest.param(chat(messages=[{"role": "user", "content": 5}]), "messages[0].content", id="number-content"),
    pytest.param(
        chat(messages=[*QUESTION, {"role": "user", "content": [7]}]),
        "messages[1].content[0]",
        id="number-for-a-part",
    ),
    pytest.param(
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": 5}]}]),
        "messages[0].content[0].text",
        id="number-in-a-part",
    ),
    pytest.param(chat(messages=[*QUESTION, {"role": "assistant", "content": "x"}]), "messages", id="prefill"),
    # Keys that stand twice.
    pytest.param(raw('"model":"m"'), "model", id="doubled-key"),
    pytest.param(raw('"x":{"a":1,"b":2,"a":1}'), "x.a", id="doubled-key-inside"),
    pytest.param(
        b'{"model":"m","messages":[{"role":"user","content":"hi","content":"ho"}]}',
        "messages[0].content",
        id="doubled-key-in-a-message",
    ),
    pytest.param(
        b'{"model":"m","messages":[{"role":"user","content":"hi","\\u0072ole":"system"}]}',
        "messages[0].role",
        id="doubled-key-by-escape",
    ),
    # Text that is none.
    pytest.param(chat().decode().encode("utf-16"), None, id="utf-16"),
    pytest.param(chat().decode().encode("utf-16-le"), None, id="utf-16-le"),
    pytest.param(chat().decode().encode("utf-32"), None, id="utf-32"),
    pytest.param(b"\xef\xbb\xbf" + chat(), None, id="bom"),
    pytest.param(chat().replace(b"hi", b"\xc0\xaf"), None, id="overlong-utf-8"),
    pytest.param(chat().replace(b"hi", b"\xed\xa0\x80"), None, id="surrogate-in-utf-8"),
    pytest.param(chat().replace(b"hi", b"\xff"), None, id="no-utf-8"),
    pytest.param(chat().replace(b"hi", "你好".encode("gbk")), None, id="gbk"),
    pytest.param(chat().replace(b"hi", b"a\nb"), None, id="bare-newline"),
    pytest.param(chat().replace(b"hi", b"a\x00b"), None, id="bare-nul"),
    # No JSON, or not the right one.
    pytest.param(b"", None, id="nothing"),
    pytest.param(b" \r\n", None, id="blanks"),
    pytest.param(b"null", None, id="null"),
    pytest.param(b"5", None, id="number"),
    pytest.param(b'"text"', None, id="text"),
    pytest.param(b"[]", None, id="list"),
    pytest.param(chat()[:-1], None, id="truncated"),
    pytest.param(chat() + b"x", None, id="garbage-behind"),
    pytest.param(chat() + chat(), None, id="two-objects"),
    pytest.param(chat().replace(b'"', b"'"), None, id="single-quotes"),
    pytest.param(chat().replace(b"}]}", b"}],}"), None, id="trailing-comma"),
    pytest.param(b"model=m&messages=hi", None, id="form"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED)
def test_a_bad_body_is_a_400_that_names_the_field_and_reaches_no_backend(
    one: Stack, body: bytes, param: str | None
) -> None:
    reply = post(one, body)
    assert reply.status_code == 400, reply.text
    error = refusal(reply)
    if param == "metadata":  # the deepest place is not told whole
        assert error["param"].startswith("metadata[0]")
    else:
        assert error["param"] == param
    assert len(error["message"]) < 300
    assert one.only.requests == []
    assert post(one, chat()).status_code == 200


def test_very_many_keys_are_read_or_refused_in_good_time(one: Stack) -> None:
    keys = ",".join(f'"k{number}":0' for number in range(15_000))
    for body, status, param in [
        (raw(keys), 200, None),
        (raw(keys + ',"k14999":1'), 400, "k14999"),
        (raw(MANY_KEYS), 400, None),
    ]:
        began = time.monotonic()
        reply = post(one, body)
        assert reply.status_code == status
        assert time.monotonic() - began < 5
        assert status == 200 or refusal(reply)["param"] == param


def test_more_messages_than_any_model_has_use_for_are_refused(one: Stack) -> None:
    assert refusal(post(one, chat(messages=QUESTION * 4097)))["param"] == "messages"
    assert post(one, chat(messages=QUESTION * 300)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(raw('"temperature":-0'), id="minus-zero"),
        pytest.param(raw('"temperature":-0.0,"presence_penalty":-0.0'), id="minus-zero-float"),
        pytest.param(raw('"temperature":1'), id="int-for-float"),
        pytest.param(raw('"temperature":1E0'), id="exponent"),
        pytest.param(raw('"max_tokens":80000'), id="more-tokens-than-there-are"),
        pytest.param(raw(f'"seed":{2**63}'), id="2**63-as-seed"),
        pytest.param(raw('"foo":null,"bar":{"baz":[1,2]}'), id="unknown-fields"),
        pytest.param(raw('"temperature":null,"tools":null,"stop":null,"stream":null,"n":null'), id="nulls"),
        pytest.param(raw('"stream_options":{"include_usage":true}'), id="stream-options-without-stream"),
        pytest.param(b"\n\t " + chat() + b" \r\n", id="blanks-around"),
    ],
)
def test_odd_but_good_bodies_are_taken(one: Stack, body: bytes) -> None:
    assert (post(one, body)).status_code == 200


ODD_TEXTS = [
    pytest.param("a\x00b", id="nul"),
    pytest.param("a\u2028b\u2029c", id="line-and-paragraph-separator"),
    pytest.param("a\x85b\x0bc\x0cd", id="other-line-ends"),
    pytest.param("a\r\nb\rc\nd\n\ne", id="newlines"),
    pytest.param("data: [DONE]\n\ndata: {}", id="looks-like-an-event"),
    pytest.param("\ufeff\u200b\u202e", id="invisible"),
    pytest.param("\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e8\U0001f1f3", id="emoji"),
    pytest.param("\ufdd0\uffff\U0010ffff", id="noncharacters"),
    pytest.param("[Round 1]\n\n问：x\n\n答：y", id="looks-like-a-round"),
    pytest.param('"\\\x1b[31m', id="quotes-and-escapes"),
]


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_characters_reach_the_model_unchanged(one: Stack, text: str) -> None:
    reply = post(one, call(json.dumps(text)))
    assert heard(reply)["prompt"] == text
    unescaped = post(one, call(json.dumps(text, ensure_ascii=False)))
    assert heard(unescaped)["prompt"] == text


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_characters_come_back_unchanged_and_never_split_an_event(one: Stack, text: str) -> None:
    said = f"@@reply:x{text}x@@".replace("\n", "\\n")
    messages = [{"role": "user", "content": said}]
    whole = post(one, chat(messages=messages))
    assert whole.json()["choices"][0]["message"]["content"] == f"x{text}x"
    streamed = post(one, chat(messages=messages, stream=True))
    *events, end = streamed.content.split(b"\n\n")
    assert end == b""
    assert events.pop() == b"data: [DONE]"
    assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
    deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == f"x{text}x"


def test_a_surrogate_pair_written_as_escapes_is_one_character(one: Stack) -> None:
    reply = post(one, call(r'"\ud83d\ude00"'))
    assert heard(reply)["prompt"] == "😀"


# --- encodings, types and sizes --------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-unknown"])
def test_a_compressed_body_is_a_415(one: Stack, encoding: str) -> None:
    reply = post(one, chat(), content_encoding=encoding)
    assert reply.status_code == 415
    assert refusal(reply)["code"] == "unsupported_media_type"
    assert one.only.requests == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('application/json; charset="UTF-8"', 200),
        ("Application/JSON;charset=utf8", 200),
        ("application/vnd.api+json", 200),
        ("", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/json; charset=gbk", 415),
        ("application/json; charset=utf-16", 415),
        ("application/jsonp", 415),
        ("json", 415),
    ],
)
def test_only_json_in_utf_8_is_read(one: Stack, kind: str, status: int) -> None:
    assert (post(one, chat(), content_type=kind)).status_code == status


def test_a_body_without_a_type_is_taken_for_json(one: Stack) -> None:
    reply = httpx.post(f"{one.url}/v1/chat/completions", content=chat(), **PLAIN)
    assert reply.status_code == 200


def _slices(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_a_413(one: Stack, chunked: bool) -> None:
    limit = one.settings.server.max_body
    body = chat(user="x" * limit)
    reply = post(one, _slices(body) if chunked else body)
    assert reply.status_code == 413
    assert refusal(reply)["code"] == "body_too_large"
    assert one.only.requests == []


# --- model names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x" * 1_000_000, id="a-million-characters"),
        pytest.param(" m", id="blank-before"),
        pytest.param("M", id="other-case"),
        pytest.param("m\n", id="newline"),
        pytest.param("m\x00", id="nul"),
        pytest.param("../m", id="path"),
        pytest.param("__proto__", id="proto"),
        pytest.param("{m}", id="braces"),
        pytest.param("ｍ", id="wide"),
        pytest.param("other", id="label-of-the-rest"),
        pytest.param("模型", id="chinese"),
        pytest.param("\x1b[31m' OR '1'='1", id="escapes"),
    ],
)
def test_an_unknown_model_is_a_404_that_does_not_repeat_the_name(one: Stack, name: str) -> None:
    reply = post(one, chat(model=name))
    assert reply.status_code == 404
    error = refusal(reply)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert len(reply.content) < 400
    assert one.only.requests == []


@pytest.mark.parametrize("fields", [{"model": ""}, {"model": None}])
def test_a_model_must_be_named(one: Stack, fields: dict[str, Any]) -> None:
    reply = post(one, chat(**fields))
    assert reply.status_code == 400
    assert refusal(reply)["param"] == "model"


# --- nothing in a body steers ----------------------------------------------------------------------


@contextmanager
def canary() -> Iterator[str]:
    """The URL of a server that nobody may visit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            listener.accept()


def steering(url: str) -> dict[str, Any]:
    return {
        "api_base": url,
        "base_url": url,
        "api_key": "sk-canary",
        "api_version": "x",
        "headers": {"Host": "canary", "X-Canary": "1"},
        "extra_headers": {"X-Canary": "1"},
        "extra_body": {"model": "other"},
        "extra_query": {"x": "y"},
        "proxy": url,
        "url": url,
        "endpoint": url,
        "backend": "other",
        "organization": url,
    }


@pytest.mark.parametrize("dialect", ["chatglm2", "chatglm3", "glm4", "openai"])
def test_nothing_in_a_body_chooses_the_server_its_key_or_its_headers(dialect: str) -> None:
    with canary() as url, threaded(Options(dialect=dialect)) as one:
        for stream in (False, True):
            assert post(one, chat(stream=stream, **steering(url))).status_code == 200
        records = one.only.requests
    assert len(records) == 2
    for record in records:
        assert "x-canary" not in record.headers
        assert "canary" not in record.headers["host"]
        assert "authorization" not in record.headers


@pytest.mark.parametrize(("dialect", "status"), [("chatglm2", 400), ("chatglm3", 400), ("openai", 200)])
def test_no_url_in_a_message_is_ever_fetched(dialect: str, status: int) -> None:
    with canary() as url, threaded(Options(dialect=dialect)) as one:
        parts = [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": f"{url}/x.png"}},
        ]
        reply = post(one, chat(messages=[{"role": "user", "content": parts}]))
    assert reply.status_code == status, reply.text
    if status == 400:
        assert refusal(reply)["param"] == "messages[0].content[1].type"


@pytest.mark.parametrize(
    "name",
    ["authorization", "x-api-key", "cookie", "openai-organization", "x-forwarded-for", "x-stainless-lang"],
)
def test_headers_of_a_client_are_not_passed_on(one: Stack, name: str) -> None:
    post(one, chat(), **{name: "canary-value"})
    (record,) = one.only.requests
    assert "canary-value" not in record.headers.values()


# --- the native door -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="no-prompt"),
        pytest.param(b'{"prompt":null}', id="null-prompt"),
        pytest.param(b'{"prompt":5}', id="number-prompt"),
        pytest.param(b'{"prompt":"x","history":"y"}', id="text-history"),
        pytest.param(b'{"prompt":"x","history":["ab"]}', id="text-row"),
        pytest.param(b'{"prompt":"x","history":[["a","b","c"]]}', id="long-row"),
        pytest.param(b'{"prompt":"x","history":[["a",5]]}', id="number-half"),
        pytest.param(b'{"prompt":"x","history":[{"a":1,"b":2}]}', id="object-row"),
        pytest.param(b'{"prompt":"x","max_length":true}', id="bool-length"),
        pytest.param(b'{"prompt":"x","max_length":1.5}', id="float-length"),
        pytest.param(b'{"prompt":"x","temperature":NaN}', id="nan"),
        pytest.param(b'{"prompt":"x","temperature":3}', id="too-hot"),
        pytest.param(b'{"prompt":"x","top_p":"1"}', id="text-top_p"),
        pytest.param(b'{"prompt":"x","prompt":"y"}', id="doubled-key"),
        pytest.param(b'["x"]', id="list"),
        pytest.param(b"prompt=x", id="form"),
    ],
)
def test_a_bad_native_body_is_a_400_in_the_native_form(one: Stack, body: bytes) -> None:
    reply = post(one, body, "/")
    assert reply.status_code == 400
    assert set(reply.json()) == {"detail", "status"}
    assert reply.json()["status"] == 400
    assert one.only.requests == []
