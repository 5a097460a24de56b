"""What almost-OpenAI servers write around their chunks: framings, pings, end marks, slices of bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace

from tests.e2e.matrix.behaviours import (
    DONE,
    GOOD,
    HEAD,
    ROLE,
    SAID,
    STOP,
    USAGE,
    WHOLE,
    A,
    B,
    Behaviour,
    Reply,
    c,
    dumps,
    s,
    w,
)

CHUNKS = (ROLE, A, B, STOP, USAGE)
LINES = b"".join(dumps(one) + b"\n" for one in CHUNKS)
GOOD_BYTES = GOOD.body.removesuffix(DONE)


def framed(name: str, body: bytes, whole: Reply = WHOLE, kind: str = "text/event-stream") -> Behaviour:
    """A good server that frames its stream in another way."""
    return Behaviour(name, Reply(body, kind=kind), whole)


def ends() -> Iterator[Behaviour]:
    """How a stream says that it is over."""
    for name, mark in {
        "lower-case": b"data: [done]\n\n",
        "capitalised": b"data: [Done]\n\n",
        "with-blanks": b"data:   [DONE]  \n\n",
        "with-blanks-inside": b"data: [ DONE ]\n\n",
        "as-json": b'data: "[DONE]"\n\n',
        "as-json-lower-case": b'data: "[done]"\n\n',
        "bare": b"[DONE]\n\n",
        "bare-at-the-end": b"[DONE]",
        "without-brackets": b"data: DONE\n\n",
        "with-event": b"event: done\ndata: [DONE]\n\n",
        "twice": DONE + DONE,
        "then-comment": DONE + b": bye\n\n",
        "then-bytes": DONE + b"\x00\x00garbage",
        "then-json": DONE + b'{"x":1}',
        "then-chunks": DONE + b"data: " + dumps(A) + b"\n\n",
        "then-error": DONE + b'data: {"error":{"message":"late"}}\n\n',
        "then-blank-lines": DONE + b"\n\n\n\n",
        "behind-the-last-line": b"data: [DONE]\n",
        "with-data-twice": b"data: data: [DONE]\n\n",
    }.items():
        yield framed(f"done-{name}", GOOD_BYTES + mark)
        silent = s(ROLE, A, B, USAGE, mark, done=False)
        if name in ("lower-case", "as-json", "bare", "without-brackets", "twice"):
            yield Behaviour(f"done-{name}-and-no-finish", silent, WHOLE)
    yield framed("end-missing-its-blank-line", GOOD_BYTES.removesuffix(b"\n"))
    yield framed("end-missing-both-its-newlines", GOOD_BYTES.removesuffix(b"\n\n"))
    yield Behaviour(
        "finish-missing-its-blank-line",
        Reply(s(ROLE, A, B, STOP, done=False).body[:-1]),
        w(SAID, usage=None),
        usage=None,
    )
    yield framed("done-in-the-middle-of-crlf", (GOOD_BYTES + b"data: [done]\n\n").replace(b"\n", b"\r\n"))


def lines() -> Iterator[Behaviour]:
    """Framings."""
    yield framed("json-lines", LINES, kind="application/x-ndjson")
    yield framed("json-lines-for-both", LINES, Reply(LINES, kind="application/x-ndjson"))
    yield framed("json-lines-crlf", LINES.replace(b"\n", b"\r\n"))
    yield framed("json-lines-with-done", LINES + b"[DONE]\n")
    yield framed("json-lines-blank-lines", LINES.replace(b"\n", b"\n\n"))
    yield framed("json-lines-without-their-last-end", LINES.removesuffix(b"\n"))
    yield framed("json-side-by-side", LINES.replace(b"\n", b""))
    yield framed("json-in-an-array", b"[" + LINES.replace(b"\n", b",")[:-1] + b"]")
    cut = b"".join(dumps(one) + b"\n" for one in (ROLE, A, B))
    yield Behaviour("json-lines-cut", Reply(cut), Reply(cut), error="broken")
    failed = cut + b'{"error":{"message":"boom","code":500}}\n'
    yield Behaviour("json-lines-with-error", Reply(failed), Reply(failed), error="upstream_error")
    yield framed("one-newline-between-events", GOOD.body.replace(b"\n\n", b"\n"))
    yield framed("one-newline-no-blank", GOOD.body.replace(b"\n\n", b"\n").replace(b"data: ", b"data:"))
    yield framed("one-crlf-between-events", GOOD.body.replace(b"\n\n", b"\r\n"))
    yield framed("three-newlines-between-events", GOOD.body.replace(b"\n\n", b"\n\n\n"))
    yield framed("newlines-first", b"\n\n\n" + GOOD.body)
    yield framed("crlf-first", b"\r\n\r\n" + GOOD.body)
    yield framed("mixed-line-ends", GOOD.body.replace(b"\n\n", b"\r\n\r\n", 2))
    yield framed("mixed-line-ends-late", GOOD_BYTES + DONE.replace(b"\n", b"\r\n"))
    yield framed(
        "retry-lines", b"retry: 3000\n\n" + GOOD.body.replace(b"data: ", b"id: 5\nretry: 10\ndata: ")
    )
    yield framed("event-after-data", GOOD.body.replace(b"\n\n", b"\nevent: message\nid: 9\n\n"))
    yield framed("comments-inside-events", GOOD.body.replace(b"data: ", b": OPENROUTER PROCESSING\ndata: "))
    yield framed("comments-without-an-end", GOOD.body.replace(b"data: ", b": keep-alive\ndata: "))
    yield framed("capital-fields", GOOD.body.replace(b"data: ", b"event:\ndata: "))
    yield framed("named-events", GOOD.body.replace(b"data: ", b"event: chat.completion.chunk\ndata: "))
    yield framed("tab-after-the-colon", GOOD.body.replace(b"data: ", b"data:\t"))
    yield framed("two-blanks-after-the-colon", GOOD.body.replace(b"data: ", b"data:  "))
    yield framed("data-twice", GOOD.body.replace(b"data: ", b"data: data: "))
    pretty = b"".join(
        b"".join(b"data: " + line + b"\n" for line in json.dumps(one, indent=1).encode().split(b"\n")) + b"\n"
        for one in CHUNKS
    )
    yield framed("data-over-several-lines", pretty + DONE)
    yield framed("pretty-whole", pretty + DONE, j_pretty(WHOLE))
    yield framed("pretty-json-for-a-stream", j_pretty(WHOLE).body, j_pretty(WHOLE))
    two = b"data: " + dumps(A) + dumps(B) + b"\n\n"
    yield Behaviour("two-chunks-in-an-event", s(ROLE, two, STOP, USAGE), WHOLE)
    yield Behaviour(
        "two-chunks-in-an-event-of-two-lines",
        s(ROLE, b"data: " + dumps(A) + b"\ndata: " + dumps(B) + b"\n\n", STOP, USAGE),
        WHOLE,
    )
    yield Behaviour(
        "all-chunks-in-one-event", Reply(b"data: " + LINES.replace(b"\n", b"") + b"\n\n" + DONE), WHOLE
    )
    yield Behaviour("a-list-of-chunks", s(ROLE, b"data: " + dumps([A, B]) + b"\n\n", STOP, USAGE), WHOLE)
    pings = {
        "type": {"type": "ping"},
        "object": {"object": "ping"},
        "empty": {},
        "null": None,
        "head-only": HEAD,
        "no-choices": {**HEAD, "choices": []},
        "null-choices": {**HEAD, "choices": None},
        "filter-results": {
            "choices": [],
            "prompt_filter_results": [{"prompt_index": 0}],
            "id": "",
            "model": "",
        },
        "empty-choice": {**HEAD, "choices": [{}]},
        "text": b"data: \n\n",
        "named": b"event: ping\ndata: {}\n\n",
        "named-text": b"event: ping\ndata: 2026-12-01 10:00:00\n\n",
        "heartbeat": b"event: heartbeat\ndata: heartbeat\n\n",
    }
    for name, ping in pings.items():
        yield Behaviour(f"ping-{name}", s(ROLE, ping, A, ping, B, STOP, ping, USAGE), WHOLE)
        yield Behaviour(f"ping-first-{name}", s(ping, ROLE, A, B, STOP, USAGE), WHOLE)
    chinese = s(c({"role": "assistant", "content": '你好\n"😀\\'}), c({"content": "é世界"}), STOP, USAGE)
    said = w({**SAID, "content": '你好\n"😀\\é世界'})
    for name, body in {
        "utf-8": chinese.body,
        "escapes": b"".join(
            b"data: " + json.dumps(json.loads(x[6:])).encode() + b"\n\n"
            for x in chinese.body.split(b"\n\n")[:-2]
        )
        + DONE,
        "crlf": chinese.body.replace(b"\n\n", b"\r\n\r\n"),
        "lines": b"\n".join(x[6:] for x in chinese.body.split(b"\n\n")[:-2]),
    }.items():
        for size in (1, 3):
            yield Behaviour(
                f"slices-of-{size}-{name}",
                Reply(body, size=size),
                replace(said, size=size),
                text='你好\n"😀\\é世界',
            )
    yield Behaviour("slices-of-1-one-newline", Reply(GOOD.body.replace(b"\n\n", b"\n"), size=1), WHOLE)
    yield Behaviour("slices-of-1-mark", Reply(b"\xef\xbb\xbf" + GOOD.body, size=1), WHOLE)
    yield Behaviour("slices-of-1-json", Reply(WHOLE.body, size=1), Reply(GOOD.body, size=1))
    packed = replace(GOOD, body=gzip.compress(GOOD.body), coding="gzip")
    yield Behaviour(
        "coded-though-identity-was-asked", packed, replace(packed, kind="application/json"),
        error="upstream_invalid_response",
    )  # fmt: skip
    raw = [
        b"data: " + dumps(c({"content": "X"})).replace(b"X", x) + b"\n\n" for x in (b"a\xe4\xbd", b"\xa0b")
    ]
    yield Behaviour(
        "replaced-characters",
        s(ROLE, c({"content": "a\ufffd"}), c({"content": "\ufffdb"}), STOP, USAGE),
        w({**SAID, "content": "a\ufffd\ufffdb"}),
        text="a\ufffd\ufffdb",
    )
    yield Behaviour(
        "character-over-two-events", s(ROLE, *raw, STOP, USAGE), w({**SAID, "content": "a你b"}), text="a你b"
    )


def j_pretty(reply: Reply) -> Reply:
    """The same over several lines."""
    return Reply(json.dumps(json.loads(reply.body), indent=2).encode(), kind="application/json")


FRAMINGS = [*ends(), *lines()]
