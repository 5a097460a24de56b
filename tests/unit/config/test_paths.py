"""The paths of backends are those that their dialects have."""

from __future__ import annotations

import pytest

from tests.unit.config.test_rules import faults


def backend(url: str, dialect: str = "openai", extra: str = "") -> str:
    return f'[[backends]]\nname = "a"\nurl = "{url}"\ndialect = "{dialect}"\nmodels = ["m"]\n{extra}\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (backend("http://h:1/v1", "chatglm2"), "backends[0].url: ends as the address of an OpenAI-like"),
        (backend("http://h:1/v1/chat/completions", "chatglm"), "backends[0].url: ends as the address"),
        (backend("http://h:1/v1/chat/completions", extra='path = "/x"'), "backends[0].path: the url names"),
        (backend("http://h:1", "chatglm-stream", 'path = "/x"'), 'backends[0].path: must end in "/chat"'),
        (backend("http://h:1", extra='path = "chat"'), 'backends[0].path: a path such as "/v1/chat/comp'),
        (backend("http://h:1", extra='path = "/a#b"'), 'backends[0].path: a path such as "/v1/chat/comp'),
    ],
)  # fmt: skip
def test_path_that_the_dialect_has_not_is_refused(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    "text",
    [
        backend("http://h:1/chat", "chatglm2"),
        backend("http://h:1", "chatglm2", 'path = "/v1"'),
        backend("http://h:1/api/paas/v4"),
    ],
)
def test_path_that_it_may_have_is_taken(text: str) -> None:
    assert faults(text) == []
