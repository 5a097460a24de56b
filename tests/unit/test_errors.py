from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway import errors
from gateway.errors import TABLE, GatewayError
from gateway.formats.openai import write_error


def subclasses(kind: type[GatewayError]) -> set[type[GatewayError]]:
    found = set(kind.__subclasses__())
    return found.union(*map(subclasses, found)) if found else found


EVERY = sorted(subclasses(GatewayError), key=lambda kind: kind.__name__)
FAMILIES = {errors.Unavailable, errors.UpstreamTimeout}
"""Only caught, never raised: their members have the rows."""
KINDS = [kind for kind in EVERY if kind not in FAMILIES]


def drawn() -> dict[str, str]:
    """The tree of the module's docstring: each class with the one it is drawn under."""
    above: dict[int, str] = {0: "GatewayError"}
    found: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        branch = re.match(r" {4}((?:│   )*)[├└]── (.*)", line)
        if branch is None:
            continue
        depth = len(branch[1]) // 4
        for name in re.findall(r"[A-Z]\w*[a-z]\w*", re.split(r" {2,}(?![A-Z]\w+[A-Z])", branch[2])[0]):
            found[name] = above[depth]
            above[depth + 1] = name
        for name in re.findall(r" {2,}([A-Z]\w+(?:, [A-Z]\w+)+)", branch[2]):
            found |= dict.fromkeys(name.split(", "), above[depth + 1])
    return found


def made(kind: type[GatewayError]) -> GatewayError:
    return kind("wrong") if kind is errors.Unauthorized else kind("What is wrong.")


def called_names(source: str) -> set[str]:
    """The names that are called in a source, with or without their module."""
    called = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in called}


def test_the_table_has_a_row_for_every_error_and_no_other() -> None:
    assert set(TABLE) == set(KINDS)


def test_a_family_without_a_row_is_never_made() -> None:
    package = Path(errors.__file__).parent
    names = {kind.__name__ for kind in FAMILIES}
    for path in package.rglob("*.py"):
        assert not names & called_names(path.read_text("utf-8")), path


def test_the_docstring_draws_every_error_under_its_parent() -> None:
    assert drawn() == {kind.__name__: kind.__mro__[1].__name__ for kind in EVERY}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_can_be_told_to_a_client(kind: type[GatewayError]) -> None:
    error = made(kind)
    assert error.row is TABLE[kind]
    assert str(error) == error.message
    assert error.message
    assert error.code == error.row.code
    assert 400 <= error.row.status < 600


def test_an_error_names_the_field_and_when_to_come_again() -> None:
    error = errors.QueueFull("Full.", param="messages", retry_after=1.5)
    assert (error.param, error.retry_after) == ("messages", 1.5)
    assert (errors.QueueFull("Full.").param, errors.QueueFull("Full.").retry_after) == (None, None)


def test_every_cause_of_a_refused_key_reads_alike() -> None:
    missing, wrong = errors.Unauthorized("missing"), errors.Unauthorized("wrong")
    assert missing.message == wrong.message
    assert (missing.reason, wrong.reason) == ("missing", "wrong")


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_is_described(kind: type[GatewayError]) -> None:
    assert kind.__doc__
    assert kind.__doc__ != GatewayError.__doc__


def test_an_error_may_carry_a_code_of_its_own() -> None:
    assert errors.UpstreamRejected("No.", code="context_length_exceeded").code == "context_length_exceeded"
    assert errors.UpstreamRejected("No.").code is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_type_follows_from_the_status(kind: type[GatewayError]) -> None:
    row = TABLE[kind]
    assert row.type == ("server_error" if row.status >= 500 else "invalid_request_error") or row.status == 429


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_blames_the_client_blames_no_backend(kind: type[GatewayError]) -> None:
    row = TABLE[kind]
    if row.status < 500:
        assert not row.blames
        assert not row.retryable


@pytest.mark.parametrize("kind", sorted(subclasses(errors.UpstreamError), key=str))
def test_a_failed_generation_is_not_to_be_repeated_by_the_sdk(kind: type[GatewayError]) -> None:
    assert TABLE[kind].status == 502
    assert TABLE[kind].repeat is False


@pytest.mark.parametrize("kind", sorted(subclasses(errors.UpstreamTimeout), key=str))
def test_only_a_generation_that_never_showed_is_begun_again(kind: type[GatewayError]) -> None:
    row = TABLE[kind]
    silent = kind is errors.FirstTokenTimeout
    assert (row.status, row.retryable, row.blames, row.repeat) == (504, silent, True, False)


@pytest.mark.parametrize("kind", sorted(subclasses(errors.Unavailable), key=str))
def test_what_is_not_possible_now_is_503(kind: type[GatewayError]) -> None:
    assert TABLE[kind].status == 503


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_outcomes_are_plain_words(kind: type[GatewayError]) -> None:
    row = TABLE[kind]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", row.outcome)
    assert row.code is None or re.fullmatch(r"[a-z][a-z0-9_]*", row.code)


OVERFLOWS = [errors.ContextExceeded.told(8192, 9000), errors.ContextExceeded.told(8192, 9000, estimated=True)]
OVERFLOWS += [errors.ContextExceeded.told(), errors.ContextExceeded.told(8192)]
OVERFLOW_PHRASES = ("this model's maximum context length is", "context_length_exceeded", "prompt is too long")
"""By one or the other of these LangChain, CrewAI, other gateways and coding agents know an overflow."""


def raised(error: GatewayError) -> openai.APIStatusError:
    """What OpenAI's SDK makes of an error."""
    answer = httpx.Response(error.row.status, content=write_error(error))
    transport: Any = httpx.MockTransport(lambda _: answer)
    http: Any = httpx.Client(transport=transport)
    with (
        openai.OpenAI(api_key="x", base_url="http://x/v1", http_client=http, max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    return caught.value


@pytest.mark.parametrize("error", OVERFLOWS)
def test_an_overflow_is_known_by_its_words_in_the_sdks_own_error(error: errors.ContextExceeded) -> None:
    made = raised(error)
    assert type(made) is openai.BadRequestError
    assert made.code == "context_length_exceeded"
    assert all(phrase in str(made).lower() for phrase in OVERFLOW_PHRASES)


def test_an_overflow_names_its_numbers_where_they_are_known() -> None:
    said = OVERFLOWS[0].message
    assert re.search(r"maximum context length is (\d+) tokens.*resulted in (\d+) tokens", said)
    assert "8192 tokens" in OVERFLOWS[3].message


def test_a_wrong_key_is_known_by_its_words_in_the_sdks_own_error() -> None:
    made = raised(errors.Unauthorized("wrong"))
    assert type(made) is openai.AuthenticationError
    assert "Incorrect API key provided" in str(made)
    assert made.code == "invalid_api_key"


def test_a_busy_backend_is_known_in_the_sdks_own_error() -> None:
    made = raised(errors.UpstreamBusy("The backend is busy.", retry_after=6))
    assert type(made) is openai.InternalServerError
    assert (made.status_code, made.code) == (503, "overloaded")
