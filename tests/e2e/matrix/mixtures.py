"""Odd members, odd calls, and several oddities at once, as almost-OpenAI servers send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.e2e.matrix.behaviours import (
    COUNTED,
    GOOD,
    HEAD,
    PARIS,
    ROLE,
    ROME,
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
    j,
    piece,
    s,
    u,
    w,
)
from tests.e2e.matrix.framings import CHUNKS, LINES, framed


def one(delta: Any, finish: Any = None, index: Any = 0, **more: Any) -> dict[str, Any]:
    """A chunk with members of its own in its choice."""
    return {**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": finish, **more}]}


def odd_members() -> Iterator[Behaviour]:
    """Finish, indexes, names of members."""
    for name, end in {
        "null": c(None, "stop"),
        "missing": {**HEAD, "choices": [{"index": 0, "finish_reason": "stop"}]},
        "empty": c({}, "stop"),
        "null-content": c({"content": None}, "stop"),
        "empty-content": c({"role": "assistant", "content": ""}, "stop"),
        "null-role": c({"role": None, "content": ""}, "stop"),
        "list": c([], "stop"),
        "text": c("", "stop"),
        "empty-calls": c({"content": "", "tool_calls": []}, "stop"),
    }.items():
        yield Behaviour(f"finish-alone-delta-{name}", s(ROLE, A, B, end, USAGE), WHOLE)
    yield Behaviour("usage-before-the-finish", s(ROLE, A, B, USAGE, STOP), WHOLE)
    yield Behaviour("usage-first", s(USAGE, ROLE, A, B, STOP), WHOLE)
    yield Behaviour(
        "usage-after-done", Reply(s(ROLE, A, B, STOP).body + s(USAGE).body), w(SAID, usage=None), usage=None
    )
    nested = {
        **COUNTED,
        "prompt_tokens_details": {"cached_tokens": 4, "text_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    yield Behaviour("usage-nested", s(ROLE, A, B, STOP, u(nested)), w(SAID, usage=nested))
    odd = {
        "strings": {"prompt_tokens": "5", "completion_tokens": "3", "total_tokens": "8"},
        "floats": {"prompt_tokens": 5.0, "completion_tokens": 3.0, "total_tokens": 8.0},
        "float-total": {**COUNTED, "total_tokens": 8.0},
        "total-missing": {"prompt_tokens": 5, "completion_tokens": 3},
        "completion-missing": {"prompt_tokens": 5, "total_tokens": 8},
        "other-names": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8},
        "details-null": {**COUNTED, "prompt_tokens_details": None},
        "timing-floats": {**COUNTED, "total_time": 0.5},
    }
    for name, usage in odd.items():
        yield Behaviour(f"usage-{name}", s(ROLE, A, B, STOP, u(usage)), w(SAID, usage=usage))
    yield Behaviour("usage-list", s(ROLE, A, B, STOP, u([])), w(SAID, usage=[]), usage=None)
    yield Behaviour("usage-of-the-choice", s(ROLE, A, B, one({}, "stop", usage=COUNTED)), WHOLE)
    yield Behaviour("usage-of-groq", s(ROLE, A, B, {**STOP, "x_groq": {"usage": COUNTED}}), WHOLE)
    for at in (1, 7):
        chunks = [
            one(d, f, at)
            for d, f in (
                ({"role": "assistant"}, None),
                ({"content": "a"}, None),
                ({"content": "b"}, None),
                ({}, "stop"),
            )
        ]
        whole = {
            **HEAD,
            "object": "chat.completion",
            "usage": COUNTED,
            "choices": [{"index": at, "message": SAID, "logprobs": None, "finish_reason": "stop"}],
        }
        yield Behaviour(f"index-{at}", s(*chunks, USAGE), j(whole))
    for name, indexes in {
        "counting": (0, 1, 2, 3),
        "null": (None,) * 4,
        "text": ("0",) * 4,
        "minus": (-1,) * 4,
    }.items():
        said: tuple[Any, ...] = ({"role": "assistant"}, {"content": "a"}, {"content": "b"}, {})
        ends = (None, None, None, "stop")
        yield Behaviour(
            f"index-{name}",
            s(*(one(d, f, at) for d, f, at in zip(said, ends, indexes, strict=True)), USAGE),
            WHOLE,
        )
    both = [
        {"index": at, "delta": {"content": text}, "finish_reason": end}
        for at, text, end in ((0, "ab", "stop"), (1, "xy", "stop"))
    ]
    second = {"index": 1, "message": {**SAID, "content": "xy"}, "finish_reason": "stop"}
    yield Behaviour(
        "two-choices-though-one-was-asked",
        s({**HEAD, "choices": both}, USAGE),
        j({**json.loads(WHOLE.body), "choices": [*json.loads(WHOLE.body)["choices"], second]}),
    )
    yield Behaviour(
        "completions-text",
        s(
            *(
                {
                    **HEAD,
                    "object": "text_completion",
                    "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": end}],
                }
                for text, end in (("a", None), ("b", None), ("", "stop"))
            ),
            USAGE,
        ),
        j(
            {
                **HEAD,
                "object": "text_completion",
                "usage": COUNTED,
                "choices": [{"index": 0, "text": "ab", "finish_reason": "stop"}],
            }
        ),
    )
    yield Behaviour(
        "whole-message-at-the-end",
        s(
            ROLE,
            A,
            B,
            {
                **HEAD,
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}
                ],
            },
            USAGE,
        ),
        WHOLE,
    )
    yield Behaviour(
        "whole-message-beside-the-delta",
        s(
            ROLE,
            A,
            B,
            {
                **HEAD,
                "choices": [
                    {
                        "index": 0,
                        "delta": {},
                        "message": {"role": "assistant", "content": "ab"},
                        "finish_reason": "stop",
                    }
                ],
            },
            USAGE,
        ),
        WHOLE,
    )
    yield Behaviour(
        "whole-message-in-one-event",
        s(
            {
                **HEAD,
                "object": "chat.completion",
                "choices": [{"index": 0, "message": SAID, "finish_reason": "stop"}],
                "usage": COUNTED,
            }
        ),
        WHOLE,
    )
    yield Behaviour(
        "whole-answer-with-a-delta",
        GOOD,
        j({**HEAD, "usage": COUNTED, "choices": [{"index": 0, "delta": SAID, "finish_reason": "stop"}]}),
    )
    for name, value in {"null-model": None, "empty-model": "", "path-model": "/models/glm"}.items():
        yield Behaviour(name, s(*({**x, "model": value} for x in CHUNKS)), w(SAID, model=value))
    yield Behaviour("changing-ids", s(*({**x, "id": str(at)} for at, x in enumerate(CHUNKS))), WHOLE)
    yield Behaviour("number-id", s(*({**x, "id": 7} for x in CHUNKS)), w(SAID, id=7))
    yield Behaviour(
        "text-created", s(*({**x, "created": "1796086887"} for x in CHUNKS)), w(SAID, created="1796086887")
    )
    yield Behaviour(
        "milliseconds-created",
        s(*({**x, "created": 1796086887000} for x in CHUNKS)),
        w(SAID, created=1796086887000),
    )
    yield Behaviour(
        "bare-choices",
        s(*({"choices": [{"delta": x["choices"][0]["delta"]}]} for x in (ROLE, A, B))),
        j({"choices": [{"message": {"content": "ab"}}]}),
        usage=None,
    )
    yield Behaviour(
        "other-role", s(c({"role": "bot", "content": "a"}), B, STOP, USAGE), w({**SAID, "role": "bot"})
    )
    yield Behaviour(
        "content-as-a-list-of-texts",
        s(ROLE, c({"content": ["a"]}), B, STOP, USAGE),
        w({**SAID, "content": ["ab"]}),
    )
    yield Behaviour(
        "content-in-an-empty-list", s(c({"role": "assistant", "content": []}), A, B, STOP, USAGE), WHOLE
    )
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "ab"},
    ]
    yield Behaviour(
        "content-in-parts-with-thinking",
        s(ROLE, *(c({"content": [x]}) for x in parts), STOP, USAGE),
        w({**SAID, "content": parts}),
        reasoning="hm",
    )
    yield Behaviour(
        "thinking",
        s(ROLE, c({"thinking": "h"}), c({"thinking": "m"}), A, B, STOP, USAGE),
        w({**SAID, "thinking": "hm"}),
        reasoning="hm",
    )
    yield Behaviour(
        "both-reasonings",
        s(ROLE, c({"reasoning": "hm", "reasoning_content": "hm"}), A, B, STOP, USAGE),
        w({**SAID, "reasoning": "hm", "reasoning_content": "hm"}),
        reasoning="hm",
    )
    yield Behaviour(
        "reasoning-null-and-empty",
        s(
            ROLE,
            c({"reasoning_content": None, "content": "a"}),
            c({"content": "b", "reasoning_content": ""}),
            STOP,
            USAGE,
        ),
        w({**SAID, "reasoning_content": None}),
    )
    yield Behaviour(
        "reasoning-beside-text",
        s(ROLE, c({"reasoning_content": "hm", "content": "a"}), B, STOP, USAGE),
        w({**SAID, "reasoning_content": "hm"}),
        reasoning="hm",
    )
    tagged = "<think>hm</think>ab"
    yield Behaviour(
        "think-tags",
        s(ROLE, *(c({"content": x}) for x in ("<thi", "nk>hm</think", ">ab")), STOP, USAGE),
        w({**SAID, "content": tagged}),
        text=tagged,
    )
    growing = s(ROLE, c({"content": "a"}), c({"content": "ab"}), STOP, USAGE)
    yield Behaviour("growing-deltas-are-no-guess", growing, w({**SAID, "content": "aab"}), text="aab")
    logs: dict[str, Any] = {
        "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}],
        "refusal": None,
    }
    logged = [{**x, "choices": [{**x["choices"][0], "logprobs": logs}]} for x in (A, B)]
    both_logs = {**logs, "content": logs["content"] * 2}
    whole_logs = {
        **HEAD,
        "object": "chat.completion",
        "usage": COUNTED,
        "choices": [{"index": 0, "message": SAID, "logprobs": both_logs, "finish_reason": "stop"}],
    }
    yield Behaviour("logprobs", s(ROLE, *logged, STOP, USAGE), j(whole_logs))
    yield Behaviour(
        "empty-logprobs",
        s(
            *(
                one(x["choices"][0]["delta"], x["choices"][0]["finish_reason"], logprobs={})
                for x in (ROLE, A, B, STOP)
            ),
            USAGE,
        ),
        WHOLE,
    )
    yield Behaviour(
        "matched-stop", s(ROLE, A, B, one({}, "stop", matched_stop=2, stop_reason=None), USAGE), WHOLE
    )
    yield Behaviour(
        "finish-as-an-object",
        s(ROLE, A, B, c({}, {"type": "length", "length": 3}), USAGE),
        w(SAID, {"type": "length", "length": 3}),
        finish="length",
    )
    yield Behaviour("finish-as-true", s(ROLE, A, B, c({}, True), USAGE), w(SAID, True))
    yield Behaviour(
        "finish-text-null",
        s(*(c(x, "null") for x in ({"role": "assistant"}, {"content": "ab"})), STOP, USAGE),
        w(SAID, "null"),
    )
    yield Behaviour(
        "finish-length-then-stop",
        s(ROLE, A, B, c({}, "length"), STOP, USAGE),
        w(SAID, "length"),
        finish="length",
    )
    yield Behaviour("finish-in-the-usage-chunk", s(ROLE, A, B, {**c({}, "stop"), "usage": COUNTED}), WHOLE)
    yield Behaviour(
        "error-null-everywhere",
        s(*({**x, "error": None, "code": 0, "message": "success"} for x in CHUNKS)),
        j({**json.loads(WHOLE.body), "error": None, "code": 0, "message": "success"}),
    )
    yield Behaviour(
        "service-tier",
        s(*({**x, "service_tier": "default"} for x in CHUNKS)),
        w(SAID, service_tier="default"),
        keeps={"service_tier": "default"},
    )
    yield Behaviour(
        "audio-null",
        s(ROLE, c({"content": "a", "audio": None, "refusal": None}), B, STOP, USAGE),
        w({**SAID, "audio": None, "annotations": []}),
    )


def odd_calls() -> Iterator[Behaviour]:
    """Calls."""
    two = (("w", PARIS), ("w", ROME))
    start = c({"role": "assistant", "content": None})
    whole = [piece(arguments, fn, str(at)) for at, (fn, arguments) in enumerate(two)]
    message = {"role": "assistant", "content": None, "tool_calls": whole}
    p = piece
    forms: dict[str, list[list[dict[str, Any]]]] = {
        "interleaved": [
            [p("", "w", "a", 0)],
            [p("", "w", "b", 1)],
            [p(PARIS[:6], index=0)],
            [p(ROME[:6], index=1)],
            [p(PARIS[6:], index=0)],
            [p(ROME[6:], index=1)],
        ],
        "interleaved-in-one-chunk": [
            [p("", "w", "a", 0), p("", "w", "b", 1)],
            [p(PARIS[:6], index=0), p(ROME[:6], index=1)],
            [p(PARIS[6:], index=0), p(ROME[6:], index=1)],
        ],
        "interleaved-by-id": [
            [p(PARIS[:6], "w", "a")],
            [p(ROME[:6], "w", "b")],
            [p(PARIS[6:], None, "a")],
            [p(ROME[6:], None, "b")],
        ],
        "from-index-1": [[p(PARIS, "w", "a", 1)], [p(ROME, "w", "b", 2)]],
        "index-as-text": [[{**p(PARIS, "w", "a"), "index": "0"}], [{**p(ROME, "w", "b"), "index": "1"}]],
        "downwards": [[p(PARIS, "w", "a", 1)], [p(ROME, "w", "b", 0)]],
        "without-type": [
            [{"index": 0, "id": "a", "function": {"name": "w", "arguments": PARIS}}],
            [{"index": 1, "id": "b", "function": {"name": "w", "arguments": ROME}}],
        ],
        "flat": [
            [{"id": "a", "name": "w", "arguments": PARIS}],
            [{"id": "b", "name": "w", "arguments": ROME}],
        ],
        "all-in-one-delta": [whole],
        "number-ids": [[{**p(PARIS, "w", index=0), "id": 1}], [{**p(ROME, "w", index=1), "id": 2}]],
        "empty-name-later": [
            [p("", "w", "a", 0)],
            [p(PARIS, "", "", 0)],
            [p("", "w", "b", 1)],
            [p(ROME, "", "", 1)],
        ],
        "arguments-by-character": [
            [p("", "w", "a", 0)],
            *[[p(x, index=0)] for x in PARIS],
            [p("", "w", "b", 1)],
            *[[p(x, index=1)] for x in ROME],
        ],
        "one-object": [
            [{"index": 0, "id": "a", "function": {"name": "w", "arguments": {"city": "Paris"}}}],
            [{"index": 1, "id": "b", "function": {"name": "w", "arguments": {"city": "Rome"}}}],
        ],
        "then-empty-pieces": [
            [p(PARIS, "w", "a", 0)],
            [p("", index=0)],
            [p(ROME, "w", "b", 1)],
            [p("", index=1)],
            [],
        ],
    }
    for name, deltas in forms.items():
        stream = s(start, *(c({"tool_calls": x}) for x in deltas), c({}, "tool_calls"), USAGE)
        yield Behaviour(
            f"two-calls-{name}",
            stream,
            w(message, "tool_calls"),
            text="",
            calls=two,
            finish="tool_calls",
            tools=True,
        )
    call = (("w", PARIS),)
    said = {"role": "assistant", "content": "ab", "tool_calls": [p(PARIS, "w", "a")]}
    told = [c({"tool_calls": [p(PARIS, "w", "a", 0)]})]
    more: dict[str, Any] = {"text": "ab", "calls": call, "finish": "tool_calls", "tools": True}
    yield Behaviour("call-after-text", s(ROLE, A, B, *told, STOP, USAGE), w(said), **more)
    yield Behaviour("call-before-text", s(ROLE, *told, A, B, STOP, USAGE), w(said), **more)
    yield Behaviour(
        "call-with-the-finish",
        s(ROLE, A, B, c({"tool_calls": [p(PARIS, "w", "a", 0)]}, "tool_calls"), USAGE),
        w(said, "tool_calls"),
        **more,
    )
    yield Behaviour("call-after-the-finish", s(ROLE, A, B, STOP, *told, USAGE), w(said), **more)
    yield Behaviour("call-and-no-finish", s(ROLE, A, B, *told, USAGE), w(said, None), **more)
    yield Behaviour("call-with-eos", s(ROLE, A, B, *told, c({}, "eos"), USAGE), w(said, "eos"), **more)
    yield Behaviour(
        "call-as-json-lines",
        Reply(b"".join(dumps(x) + b"\n" for x in (ROLE, A, B, *told, STOP, USAGE))),
        w(said),
        **more,
    )
    yield Behaviour(
        "call-in-a-message-at-the-end",
        s(
            ROLE,
            A,
            B,
            *told,
            {**HEAD, "choices": [{"index": 0, "message": said, "finish_reason": "stop"}]},
            USAGE,
        ),
        w(said),
        **more,
    )
    yield Behaviour(
        "call-for-both-kinds", j({**json.loads(w(said).body)}), s(ROLE, A, B, *told, STOP, USAGE), **more
    )
    old = {"name": "w", "arguments": PARIS}
    yield Behaviour(
        "call-in-both-forms",
        s(ROLE, A, B, c({"function_call": old, "tool_calls": [p(PARIS, "w", "a", 0)]}), STOP, USAGE),
        w({**said, "function_call": old}),
        **more,
    )


def mixtures() -> Iterator[Behaviour]:
    """Several oddities at once."""
    ending = c({"content": ""}, "eos")
    yield framed("mix-crlf-comments-no-finish", s(ROLE, A, b": x\n\n", B, USAGE).body.replace(b"\n", b"\r\n"))
    yield framed(
        "mix-no-blank-lower-done-eos",
        s(ROLE, A, B, ending, u(), done=False).body.replace(b"data: ", b"data:") + b"data:[done]\n\n",
        w(SAID, "eos"),
    )
    yield framed(
        "mix-mark-events-growing-usage",
        b"\xef\xbb\xbf"
        + s(
            *(
                {**x, "usage": {**COUNTED, "completion_tokens": at}}
                for at, x in enumerate((ROLE, A, B, STOP))
            ),
            USAGE,
        ).body.replace(b"data: ", b"event: delta\ndata:"),
    )
    texts = [{"choices": [{"text": x}]} for x in "ab"]
    yield Behaviour(
        "mix-lines-of-texts-no-head",
        Reply(b"".join(dumps(x) + b"\n" for x in texts) + b"[done]\n"),
        j({"choices": [{"text": "ab"}]}),
        usage=None,
    )
    yield Behaviour(
        "mix-reasoning-length-no-done",
        s(ROLE, c({"reasoning": "hm"}), A, c({"content": "b"}, "max_tokens"), done=False),
        w({**SAID, "reasoning": "hm"}, "max_tokens", None),
        reasoning="hm",
        finish="length",
        usage=None,
    )
    yield Behaviour("mix-lines-in-slices", Reply(LINES, size=7), Reply(LINES, size=7))
    yield Behaviour(
        "mix-one-newline-pings-slices",
        Reply(s({"type": "ping"}, *CHUNKS).body.replace(b"\n\n", b"\n"), size=5),
        WHOLE,
    )
    late = s(ROLE, A, B, STOP, done=False).body + b'data: {"error": {"message": "boom", "code": 500}}\n\n'
    yield Behaviour(
        "mix-error-after-the-finish",
        Reply(late),
        j({"error": {"message": "boom", "code": 500}}),
        error="upstream_error",
    )
    for name, body in {"lines": LINES, "one-newline": GOOD.body.replace(b"\n\n", b"\n")}.items():
        chunk = c({"content": "语" * 100})
        big = b"".join((b"data: " if name != "lines" else b"") + dumps(chunk) + b"\n" for _ in range(3000))
        end = body.split(b"\n")
        text = "语" * 300_000
        first, rest = b"\n".join(end[:1]) + b"\n", b"\n".join(end[3:])
        yield Behaviour(
            f"mix-long-{name}", Reply(first + big + rest), w({**SAID, "content": text}), text=text
        )


MIXTURES = [*odd_members(), *odd_calls(), *mixtures()]
