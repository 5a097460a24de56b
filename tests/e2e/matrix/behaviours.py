"""What almost-OpenAI servers send: each behaviour as a stream and as a whole answer, and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MODEL = "@MODEL@"
"""Stands for the name that the server was asked for."""
HEAD: dict[str, Any] = {
    "id": "chatcmpl-7",
    "object": "chat.completion.chunk",
    "created": 1796086887,
    "model": MODEL,
}
COUNTED = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
PARIS, ROME = '{"city":"Paris"}', '{"city":"Rome"}'
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """An answer of the server."""

    body: bytes
    status: int = 200
    kind: str = "text/event-stream"
    coding: str = ""
    size: int | None = None
    """Bytes of each write; None: all in one."""


@dataclass(frozen=True)
class Behaviour:
    """One server: what it answers, and what every client must get of it.

    `usage` None: any, but the same in every lane. `error` is the code of the error that ends the answer, or
    the type where it has no code.
    """

    id: str
    stream: Reply
    whole: Reply
    text: str = "ab"
    calls: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"
    usage: tuple[int, int] | None = (5, 3)
    reasoning: str = ""
    error: str | None = None
    tools: bool = False
    keeps: dict[str, Any] = field(default_factory=dict)
    refused: Reply | None = None
    """The answer to a request that streams, where that is refused."""


def c(delta: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    """A chunk."""
    return {
        **HEAD,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        **more,
    }


def u(usage: Any = COUNTED, **more: Any) -> dict[str, Any]:
    """A usage chunk."""
    return {**HEAD, "choices": [], "usage": usage, **more}


def s(*chunks: Any, done: bool = True) -> Reply:
    """A stream of chunks; bytes stand for themselves."""
    pieces = [one if isinstance(one, bytes) else b"data: " + dumps(one) + b"\n\n" for one in chunks]
    return Reply(b"".join(pieces) + (DONE if done else b""))


def w(message: Any, finish: Any = "stop", usage: Any = COUNTED, **more: Any) -> Reply:
    """A whole answer."""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    counts = {} if usage is None else {"usage": usage}
    return j({**HEAD, "object": "chat.completion", "choices": [choice], **counts, **more})


def j(value: Any, status: int = 200) -> Reply:
    """A JSON body."""
    return Reply(dumps(value), status, "application/json")


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


ROLE, A, B, STOP, USAGE = (
    c({"role": "assistant", "content": ""}),
    c({"content": "a"}),
    c({"content": "b"}),
    c({}, "stop"),
    u(),
)
SAID = {"role": "assistant", "content": "ab", "refusal": None}
GOOD, WHOLE = s(ROLE, A, B, STOP, USAGE), w(SAID)


def without(name: str, *, choice: bool = False) -> Behaviour:
    """A server that leaves a member out everywhere."""

    def bare(value: dict[str, Any]) -> dict[str, Any]:
        value = {key: member for key, member in value.items() if key != name or choice}
        value["choices"] = [
            {k: v for k, v in one.items() if k != name or not choice} for one in value["choices"]
        ]
        return value

    chunks = [bare(one) for one in (ROLE, A, B, STOP, USAGE)]
    return Behaviour(f"no-{name}", s(*chunks), j(bare(json.loads(WHOLE.body))))


def rewritten(name: str, old: bytes, new: bytes) -> Behaviour:
    """A good server whose bytes are framed in another way."""
    return Behaviour(name, Reply(GOOD.body.replace(old, new)), WHOLE)


def finishes() -> Iterator[Behaviour]:
    words = {
        "stop": [
            "stop",
            "eos",
            "eos_token",
            "end_turn",
            "stop_sequence",
            "STOP",
            "completed",
            "zebra",
            "stop_token",
        ],
        "length": ["length", "max_tokens", "max_length", "MAX_TOKENS", "max_new_tokens"],
        "content_filter": ["content_filter", "sensitive", "SAFETY"],
    }
    for reason, some in words.items():
        for word in some:
            yield Behaviour(f"finish-{word}", s(ROLE, A, B, c({}, word), USAGE), w(SAID, word), finish=reason)
    for word in ("network_error", "abort", "error"):
        yield Behaviour(
            f"finish-{word}", s(ROLE, A, B, c({}, word), USAGE), w(SAID, word), error="upstream_error"
        )
    report = {"code": 400, "message": "prompt is too long"}
    failed = c({}, "error")
    failed["choices"][0]["error"] = report
    whole = json.loads(w({"role": "assistant", "content": ""}, "error").body)
    whole["choices"][0]["error"] = report
    yield Behaviour(
        "finish-error-with-a-report-in-the-choice",
        s(ROLE, failed),
        j(whole),
        error="context_length_exceeded",
    )
    always = [c({"role": "assistant", "content": "a"}, "stop"), c({"content": "b"}, "stop")]
    yield Behaviour("finish-in-every-chunk", s(*always, USAGE), WHOLE)
    yield Behaviour("finish-first", s(c({"role": "assistant"}, "stop"), A, B, USAGE), WHOLE)
    yield Behaviour("finish-then-text", s(ROLE, A, STOP, B, USAGE), WHOLE)
    yield Behaviour("finish-twice", s(ROLE, A, B, STOP, STOP, USAGE), WHOLE)
    yield Behaviour("finish-with-the-text", s(ROLE, A, c({"content": "b"}, "stop"), USAGE), WHOLE)
    empty = [c(one, "") for one in ({"role": "assistant"}, {"content": "a"}, {"content": "b"})]
    yield Behaviour("finish-empty-until-the-end", s(*empty, STOP, USAGE), WHOLE)
    yield Behaviour("finish-never", s(ROLE, A, B, USAGE), w(SAID, None))
    yield Behaviour("finish-empty", s(ROLE, A, B, c({}, ""), USAGE), w(SAID, ""))
    yield Behaviour("finish-without-done", s(ROLE, A, B, STOP, USAGE, done=False), WHOLE)
    yield Behaviour(
        "neither-finish-nor-done",
        s(ROLE, A, B, done=False),
        Reply(b'{"id":', kind="application/json"),
        error="broken",
    )
    yield Behaviour(
        "tool-calls-without-a-call", s(ROLE, A, B, c({}, "tool_calls"), USAGE), w(SAID, "tool_calls")
    )


def piece(arguments: Any = None, name: Any = None, call_id: Any = None, index: Any = None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    known = {key: value for key, value in (("index", index), ("id", call_id)) if value is not None}
    return {**known, "type": "function", "function": function}


def calls() -> Iterator[Behaviour]:
    one, two = (("w", PARIS),), (("w", PARIS), ("w", ROME))
    first, rest = PARIS[:6], PARIS[6:]
    forms: dict[str, tuple[tuple[tuple[str, str], ...], list[list[dict[str, Any]]]]] = {
        "good": (one, [[piece("", "w", "a", 0)], [piece(first, index=0)], [piece(rest, index=0)]]),
        "index-0-for-all": (two, [[piece(PARIS, "w", "a", 0)], [piece(ROME, "w", "b", 0)]]),
        "no-index": (two, [[piece(PARIS, "w", "a")], [piece(ROME, "w", "b")]]),
        "no-index-together": (two, [[piece(PARIS, "w", "a"), piece(ROME, "w", "b")]]),
        "id-and-name-in-every-piece": (one, [[piece(part, "w", "a", 0)] for part in ("", first, rest)]),
        "no-id": (one, [[piece(part, "w", index=0)] for part in (first, rest)]),
        "no-id-two": (two, [[piece(PARIS, "w", index=0)], [piece(ROME, "w", index=1)]]),
        "repeated-whole": (one, [[piece(part, "w", "a", 0)] for part in (first, rest, PARIS)]),
        "growing": (one, [[piece(PARIS[:end], "w", "a", 0)] for end in (3, 9, len(PARIS))]),
        "object": (one, [[piece({"city": "Paris"}, "w", "a", 0)]]),
        "empty-object-first": (one, [[piece("{}", "w", "a", 0)], [piece(PARIS, index=0)]]),
        "null-arguments": (
            (("w", "{}"),),
            [[{"index": 0, "id": "a", "function": {"name": "w", "arguments": None}}]],
        ),
        "new-id-in-each-piece": (one, [[piece(first, "w", "a", 0)], [piece(rest, call_id="z", index=0)]]),
    }
    for name, (meant, deltas) in forms.items():
        chunks = [c({"tool_calls": delta}) for delta in deltas]
        whole = [piece(arguments, fn, str(at)) for at, (fn, arguments) in enumerate(meant)]
        message = {"role": "assistant", "content": None, "tool_calls": whole}
        for finish in ("tool_calls", "stop") if name == "good" else ("tool_calls",):
            yield Behaviour(
                f"calls-{name}-{finish}",
                s(c({"role": "assistant", "content": None}), *chunks, c({}, finish), USAGE),
                w(message, finish), text="", calls=meant, finish="tool_calls", tools=True,
            )  # fmt: skip
    old = {"name": "w", "arguments": PARIS}
    parts = [{"name": "w", "arguments": ""}, {"arguments": PARIS}]
    yield Behaviour(
        "calls-of-the-old-form",
        s(ROLE, *(c({"function_call": part}) for part in parts), c({}, "function_call"), USAGE),
        w({"role": "assistant", "content": None, "function_call": old}, "function_call"),
        text="", calls=one, finish="tool_calls", tools=True,
    )  # fmt: skip
    said = {"role": "assistant", "content": None, "tool_calls": [piece({"city": "Paris"}, "w", "a")]}
    words = "Cannot use tools with stream"
    refusals = {
        "400": j({"error": {"message": words, "type": "invalid_request_error"}}, 400),
        "500": j({"error": {"code": 500, "message": words, "type": "server_error"}}, 500),
        "422": j({"detail": "Streaming is not supported when tools are given"}, 422),
        "fastchat": j({"object": "error", "message": words, "code": 40001}, 400),
    }
    for name, refused in refusals.items():
        yield Behaviour(
            f"calls-streams-refused-{name}",
            GOOD,
            w(said, "stop"),
            text="",
            calls=one,
            finish="tool_calls",
            tools=True,
            refused=refused,
        )


def usages() -> Iterator[Behaviour]:
    bare = {name: value for name, value in u().items() if name != "choices"}
    yield Behaviour("usage-chunk-without-choices", s(ROLE, A, B, STOP, bare), WHOLE)
    yield Behaviour("usage-chunk-with-null", s(ROLE, A, B, STOP, {**bare, "choices": None}), WHOLE)
    growing = [
        {**one, "usage": {**COUNTED, "completion_tokens": at}} for at, one in enumerate((ROLE, A, B, STOP))
    ]
    yield Behaviour("usage-in-every-chunk", s(*growing, USAGE), WHOLE)
    yield Behaviour(
        "usage-in-every-chunk-and-none-alone", s(*growing[:-1], {**STOP, "usage": COUNTED}), WHOLE
    )
    yield Behaviour("usage-in-the-finish", s(ROLE, A, B, {**STOP, "usage": COUNTED}), WHOLE)
    yield Behaviour(
        "usage-null-everywhere", s(*({**one, "usage": None} for one in (ROLE, A, B, STOP)), USAGE), WHOLE
    )
    for name, bad in {
        "absent": None,
        "absurd": {**COUNTED, "prompt_tokens": 10**400},
        "negative": {**COUNTED, "completion_tokens": -43},
        "text": {**COUNTED, "completion_tokens": "3"},
        "zero-total": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 0},
    }.items():
        chunks = [ROLE, A, B, STOP] if bad is None else [ROLE, A, B, STOP, u(bad)]
        yield Behaviour(f"usage-{name}", s(*chunks), w(SAID, usage=bad), usage=None)
    wrong = {**COUNTED, "total_tokens": 99}
    yield Behaviour("usage-wrong-total", s(ROLE, A, B, STOP, u(wrong)), w(SAID, usage=wrong))


def members() -> Iterator[Behaviour]:
    for name in ("id", "created", "object", "model"):
        yield without(name)
    for name in ("index", "logprobs"):
        yield without(name, choice=True)
    odd = {"id": "", "created": 1.5, "object": "x", "model": "other"}
    for name, value in odd.items():
        chunks = [{**one, name: value} for one in (ROLE, A, B, STOP, USAGE)]
        yield Behaviour(f"odd-{name}", s(*chunks), w(SAID, **{name: value}))
    yield Behaviour("no-role", s(A, B, STOP, USAGE), w({"content": "ab"}))
    yield Behaviour(
        "role-in-every-chunk", s(*(c({"role": "assistant", "content": x}) for x in "ab"), STOP, USAGE), WHOLE
    )
    yield Behaviour("empty-deltas", s(ROLE, *[c({"content": ""})] * 50, A, c({}), B, STOP, USAGE), WHOLE)
    yield Behaviour(
        "content-in-parts",
        s(ROLE, c({"content": [{"type": "text", "text": "a"}]}), B, STOP, USAGE),
        w({**SAID, "content": [{"type": "text", "text": "ab"}]}),
    )
    yield Behaviour(
        "null-members",
        s(
            c({"role": "assistant", "content": None, "tool_calls": None}),
            c({"content": "a", "tool_calls": None, "function_call": None}),
            B,
            STOP,
            USAGE,
        ),
        w({**SAID, "tool_calls": None, "function_call": None}),
    )
    yield Behaviour(
        "messages-in-chunks",
        s(
            *(
                {
                    **one,
                    "choices": [
                        {
                            "index": 0,
                            "message": one["choices"][0]["delta"],
                            "finish_reason": one["choices"][0]["finish_reason"],
                        }
                    ],
                }
                for one in (ROLE, A, B, STOP)
            ),
            USAGE,
        ),
        WHOLE,
    )
    for name in ("reasoning", "reasoning_content"):
        thought = {**SAID, name: "hm"}
        yield Behaviour(
            name, s(ROLE, c({name: "h"}), c({name: "m"}), A, B, STOP, USAGE), w(thought), reasoning="hm"
        )
        alone = {"role": "assistant", "content": None, name: "hm"}
        yield Behaviour(
            f"{name}-alone", s(ROLE, c({name: "hm"}), STOP, USAGE), w(alone), text="", reasoning="hm"
        )
    half = [b"data: " + dumps(A).replace(b'"a"', b'"a' + part + b'"') + b"\n\n" for part in (b"\\ud83d", b"")]
    low = b"data: " + dumps(A).replace(b'"a"', b'"\\ude00b"') + b"\n\n"
    yield Behaviour(
        "half-characters", s(ROLE, half[0], low, STOP, USAGE), w({**SAID, "content": "a😀b"}), text="a😀b"
    )
    lone = {**SAID, "content": "ab\ud83d"}
    broken = Reply(
        json.dumps(
            json.loads(WHOLE.body)
            | {"choices": [{"index": 0, "message": lone, "logprobs": None, "finish_reason": "stop"}]}
        ).encode(),
        kind="application/json",
    )
    yield Behaviour(
        "half-a-character", s(ROLE, A, half[0].replace(b'"a', b'"b'), STOP, USAGE), broken, text="ab\ufffd"
    )
    large = "x" * 700_000
    yield Behaviour(
        "large-event", s(ROLE, c({"content": large}), STOP, USAGE), w({**SAID, "content": large}), text=large
    )
    large = "语" * 300_000
    yield Behaviour(
        "large-chinese-event",
        s(c({"role": "assistant", "content": large}), STOP, USAGE),
        w({**SAID, "content": large}),
        text=large,
    )
    extra = {"system_fingerprint": "fp", "timings": {"predicted_ms": 1.5}}
    chunks = [{**one, **extra} for one in (ROLE, A, B, STOP, USAGE)]
    yield Behaviour("unknown-members", s(*chunks), w(SAID, **extra), keeps=extra)
    llama = [
        {**one, "choices": [{k: v for k, v in x.items() if k != "logprobs"} for x in one["choices"]]}
        for one in chunks
    ]
    yield Behaviour(
        "unknown-members-without-logprobs",
        s(*llama),
        w({"role": "assistant", "content": "ab"}, **extra),
        keeps=extra,
    )
    late = {"timings": {"predicted_ms": 1.5}}
    yield Behaviour("timings-with-the-usage", s(ROLE, A, B, STOP, u(**late)), w(SAID, **late), keeps=late)
    yield Behaviour(
        "timings-with-the-finish", s(ROLE, A, B, {**STOP, **late}, USAGE), w(SAID, **late), keeps=late
    )
    cached = {**COUNTED, "prompt_cache_hit_tokens": 4}
    yield Behaviour("cache-tokens", s(ROLE, A, B, STOP, u(cached)), w(SAID, usage=cached))
    escaped = dumps(A).replace(b'"a"', b'"\\u0061"')
    yield Behaviour("escapes", s(ROLE, b"data: " + escaped + b"\n\n", B, STOP, USAGE), WHOLE)


def framings() -> Iterator[Behaviour]:
    yield Behaviour("good", GOOD, WHOLE)
    yield rewritten("crlf", b"\n", b"\r\n")
    yield rewritten("cr", b"\n", b"\r")
    yield rewritten("no-blank", b"data: ", b"data:")
    yield rewritten("event-lines", b"data: ", b"event: message\nid: 1\ndata: ")
    yield rewritten("comments", b"data: ", b": ping\n\ndata: ")
    yield rewritten("spaced", b'":', b'": ')
    yield Behaviour("byte-order-mark", Reply(b"\xef\xbb\xbf" + GOOD.body), WHOLE)
    yield Behaviour("done-without-its-end", Reply(GOOD.body.removesuffix(b"\n\n")), WHOLE)
    yield Behaviour("json-for-a-stream", WHOLE, WHOLE)
    yield Behaviour("stream-for-json", GOOD, GOOD)
    yield Behaviour("each-the-other", WHOLE, GOOD)
    thought = s(ROLE, c({"reasoning": "hm"}), A, B, c({}, "eos"), USAGE)
    yield Behaviour("stream-for-json-with-reasoning", thought, thought, reasoning="hm")
    call = s(c({"tool_calls": [piece(PARIS, "w", "a", 0)]}), STOP, USAGE)
    yield Behaviour(
        "stream-for-json-with-calls",
        call,
        call,
        text="",
        calls=(("w", PARIS),),
        finish="tool_calls",
        tools=True,
    )


def errors() -> Iterator[Behaviour]:
    overflow = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."
    forms: dict[str, tuple[Any, str]] = {
        "openai-context": (
            {"error": {"message": overflow, "type": "invalid_request_error", "code": 400}},
            "context_length_exceeded",
        ),
        "vllm-context": (
            {"object": "error", "message": overflow, "type": "BadRequestError", "code": 400},
            "context_length_exceeded",
        ),
        "llama-context": (
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                }
            },
            "context_length_exceeded",
        ),
        "bigmodel-context": (
            {"error": {"code": "1261", "message": "Prompt exceeds max length"}},
            "context_length_exceeded",
        ),
        "minimax-context": (
            {
                "base_resp": {
                    "status_code": 2013,
                    "status_msg": "invalid params, context window exceeds limit",
                }
            },
            "context_length_exceeded",
        ),
        "choice-context": (
            c({"content": ""}, "error")
            | {"choices": [{"index": 0, "error": {"code": 400, "message": overflow}}]},
            "context_length_exceeded",
        ),
        "list-context": ([{"error": {"code": 400, "message": overflow}}], "context_length_exceeded"),
        "text-context": (overflow, "context_length_exceeded"),
        "nested-context": (
            {"error": {"message": json.dumps({"message": overflow, "code": 400})}},
            "context_length_exceeded",
        ),
        "capitals-context": ({"Error": {"Code": "x", "Message": overflow}}, "context_length_exceeded"),
        "minimax-key": (
            {"choices": None, "base_resp": {"status_code": 1004, "status_msg": "login fail"}},
            "upstream_error",
        ),
        "server": ({"error": {"message": "boom", "type": "server_error", "code": 500}}, "upstream_error"),
        "server-detail": ({"detail": "boom"}, "upstream_error"),
        "server-error-message": ({"error_type": "server", "error_message": "boom"}, "upstream_error"),
        "server-code": ({"code": 500, "message": "boom"}, "upstream_error"),
    }
    for name, (body, code) in forms.items():
        status = 500 if name.startswith("server") else 400
        yield Behaviour(f"error-status-{name}", j(body, status), j(body, status), error=code)
        yield Behaviour(f"error-first-{name}", s(body), j(body), error=code)
        yield Behaviour(f"error-later-{name}", s(ROLE, A, body), j(body), error=code)
        yield Behaviour(f"error-bare-{name}", j(body), j(body), error=code)
        marked = b"event: error\ndata: " + dumps(body) + b"\n\n"
        yield Behaviour(f"error-event-{name}", s(ROLE, A, marked), j(body), error=code)
    for name, text, code in (
        ("plain", overflow, "context_length_exceeded"),
        ("unknown", "Internal Server Error", "upstream_invalid_response"),
        ("html", "<html><h1>502 Bad Gateway</h1>prompt is too long", "upstream_invalid_response"),
    ):
        body = Reply(text.encode(), kind="text/html")
        yield Behaviour(f"error-text-{name}", body, body, error=code)
        yield Behaviour(f"error-data-{name}", s(b"data: " + text.encode() + b"\n\n"), body, error=code)
    yield Behaviour("oops-delta", s(ROLE, A, c("oops", "stop")), w("oops"), error="upstream_invalid_response")
    yield Behaviour(
        "no-json",
        s(ROLE, A, b"data: {oops\n\n"),
        Reply(b"{oops", kind="application/json"),
        error="upstream_invalid_response",
    )


BEHAVIOURS = [*framings(), *finishes(), *calls(), *usages(), *members(), *errors()]
