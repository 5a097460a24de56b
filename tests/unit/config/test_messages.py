from datetime import date

import pytest
from pydantic import ValidationError

from gateway.config import BackendSettings, Config, KeySettings, TimeoutsSettings, TlsSettings
from gateway.config.fault import KeyPath
from gateway.config.messages import (
    choices_of,
    complaint,
    did_you_mean,
    meant_key,
    nearest,
    section_at,
    shown,
    unknown_key,
)
from gateway.config.model import ModelSettings
from gateway.config.section import Section, ServerSettings


def said(data: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(data)
    return complaint(caught.value.errors()[0], Config).message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"queue": {"length": "9"}}, 'a whole number is wanted, got the text "9"; write: 9'),
        ({"queue": {"length": "９"}}, 'a whole number is wanted, got the text "９"; write: 9'),
        ({"queue": {"length": "9.5"}}, 'a whole number is wanted, got the text "9.5"'),
        ({"queue": {"length": "9s"}}, 'a whole number is wanted, got the text "9s"'),
        ({"queue": {"length": "many"}}, 'a whole number is wanted, got the text "many"'),
        ({"queue": {"timeout": "30s"}}, 'a number of seconds is wanted, got the text "30s"; write: 30'),
        (
            {"queue": {"timeout": "1.5 min"}},
            'a number of seconds is wanted, got the text "1.5 min"; write: 90',
        ),
        ({"queue": {"timeout": "500ms"}}, 'a number of seconds is wanted, got the text "500ms"; write: 0.5'),
        ({"queue": {"timeout": "30秒"}}, 'a number of seconds is wanted, got the text "30秒"; write: 30'),
        (
            {"server": {"max_body": "32 MiB"}},
            'a whole number of bytes is wanted, got the text "32 MiB"; write: 33554432',
        ),
        ({"queue": {"length": 1.5}}, "a whole number is wanted, got the number 1.5"),
        ({"queue": {"timeout": True}}, "a number of seconds is wanted, got true"),
        ({"queue": {"timeout": 0}}, "must be above 0, got the number 0"),
        ({"queue": {"timeout": 1e9}}, "must be at most 86400, got the number 1000000000"),
        ({"queue": {"timeout": float("nan")}}, "must be a finite number, got the number nan"),
        ({"retries": {"attempts": 0}}, "must be at least 1, got the number 0"),
        ({"log": {"access": "yes"}}, 'true or false is wanted, got the text "yes"'),
        (
            {"log": {"level": "warn"}},
            (
                "one of debug, info, warning, error, critical is wanted, "
                'got the text "warn"; did you mean "warning"?'
            ),
        ),
        ({"log": {"level": []}}, "one of debug, info, warning, error, critical is wanted, got a list"),
        ({"log": "json"}, 'a table, headed [log], is wanted, got the text "json"'),
        ({"backends": {}}, "a list of tables, each headed [[backends]], is wanted, got a table"),
        ({"models": [3]}, "a table is wanted, got the number 3"),
        (
            {"models": [{"name": "m", "timeouts": 3}]},
            "a table of connect, first_token, between_tokens, total is wanted, got the number 3",
        ),
        ({"queue": {"length": "二"}}, 'a whole number is wanted, got the text "二"; write: 2'),
        ({"queue": {"length": "two"}}, 'a whole number is wanted, got the text "two"; write: 2'),
        ({"models": [{"name": "m", "aliases": "x"}]}, 'a list of model names is wanted, got the text "x"'),
        ({"models": [{"name": "a b"}]}, 'a name without blanks is wanted, got the text "a b"'),
        ({"models": [{}]}, "missing; a name without blanks is wanted"),
        (
            {"keys": [{"name": "k", "key": "hunter2"}]},
            ("is shorter than 8 characters, too easy to guess; use a long random text"),
        ),
        ({"keys": [{"name": "k", "key_file": ""}]}, 'is empty, got the text ""'),
    ],
)
def test_a_finding_is_said_in_our_words(data: dict[str, object], message: str) -> None:
    assert said(data) == message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("backends", 0, "dialct"), 'unknown key; did you mean "dialect"?'),
        (("serverr",), 'unknown key; did you mean "server"?'),
        (("admin", "zzz"), "unknown key; known here: listen"),
        (("backends", 0, "tls", "cafile"), 'unknown key; did you mean "ca_file"?'),
        (("models", 0, "max_body"), "unknown key here; it belongs into [server]"),
        (("models", 0, "url"), "unknown key here; it belongs into [[backends]]"),
        (("backends", 0, "context_fallbacks"), "unknown key here; it belongs into [[models]]"),
        (("backends", 0, "first_token"), "unknown key here; it belongs into [backends.timeouts]"),
        (("listen",), "unknown key here; it belongs into [server] or [admin]"),
        (
            ("backends", 0, "timeout"),
            'unknown key; did you mean "timeouts", a table of connect, first_token, between_tokens, total?',
        ),
        (("backends", 0, "model"), 'unknown key; did you mean "models"?'),
    ],
)
def test_an_unknown_key_is_told_with_what_was_meant(path: KeyPath, message: str) -> None:
    assert unknown_key(path, Config).message == message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("glm-4-flash", "openai"),
        ("glm-4.5-air", "openai"),
        ("GLM-4-9B-0414", "glm4"),
        ("THUDM/glm-4-9b-chat", "glm4"),
        ("THUDM/glm-4v-9b", "glm4v"),
        ("THUDM/chatglm2-6b-int4", "chatglm2"),
        ("chatglm3-6b-32k", "chatglm3"),
        ("THUDM/chatglm-6b", "chatglm"),
        ("chatglm.cpp", "chatglm-cpp"),
        ("Qwen/Qwen2.5-7B", "openai"),
    ],
)
def test_a_model_in_the_place_of_a_dialect_is_known(written: str, meant: str) -> None:
    message = said({"backends": [{"name": "b", "url": "http://h", "dialect": written}]})
    assert message.endswith(f'; did you mean "{meant}"?')


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ((), Config),
        (("server",), ServerSettings),
        (("backends",), BackendSettings),
        (("backends", 3), BackendSettings),
        (("backends", 3, "tls"), TlsSettings),
        (("timeouts",), TimeoutsSettings),
    ],
)
def test_the_table_at_a_path_is_found(path: KeyPath, section: type[Section]) -> None:
    assert section_at(path, Config) is section


def test_near_names_are_suggested_and_far_ones_are_not() -> None:
    assert nearest("time_out", ["timeout", "total"]) == "timeout"
    assert did_you_mean("zzz", ["timeout"]) == ""


def test_choices_are_found_also_where_a_key_may_be_unset() -> None:
    assert choices_of(ServerSettings.model_fields["auth"].annotation) == ("keys", "none")
    assert choices_of(ModelSettings.model_fields["aliases"].annotation) == ()
    assert choices_of(KeySettings.model_fields["expires"].annotation) == ()


def test_values_are_shown_by_what_they_are() -> None:
    values = [False, 3, 2.5, "x" * 99, [1], {}, date(2027, 1, 1)]
    assert [shown(value) for value in values] == [
        "false",
        "the number 3",
        "the number 2.5",
        f'the text "{"x" * 60}..."',
        "a list",
        "a table",
        "a date or time",
    ]


@pytest.mark.parametrize(
    ("written", "known", "meant"),
    [
        ("Dialect", ["dialect", "url"], "dialect"),
        ("URL", ["dialect", "url"], "url"),
        ("First_Token", ["first_token", "total"], "first_token"),
        ("first-token", ["first_token", "total"], "first_token"),
        ("ｄｉａｌｅｃｔ", ["dialect", "url"], "dialect"),
        ("ChatGLM2", ["chatglm", "chatglm2", "chatglm3"], "chatglm2"),
        ("chatglm2_openai", ["chatglm2", "chatglm2-openai"], "chatglm2-openai"),
        ("Least Busy", ["least-busy", "weighted"], "least-busy"),
        ("x" * 100_000, ["dialect"], None),
    ],
)
def test_case_blanks_and_width_do_not_hide_what_was_meant(
    written: str, known: list[str], meant: str | None
) -> None:
    assert nearest(written, known) == meant


@pytest.mark.parametrize(
    ("written", "known", "meant"),
    [
        ("base_url", ["name", "url"], "url"),
        ("Host", ["name", "url"], "url"),
        ("host", ["auth", "listen"], "listen"),
        ("port", ["auth", "listen"], "listen"),
        ("port", ["auth", "drain"], None),
        ("modle", ["models", "name"], "models"),
    ],
)
def test_keys_of_other_programs_are_understood(written: str, known: list[str], meant: str | None) -> None:
    assert meant_key(written, known) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [("vLLM", "openai"), ("Ollama", "openai"), ("GLM-4", "glm4"), ("chatglm-6b", "chatglm")],
)
def test_dialect_may_be_written_as_the_program(written: str, meant: str) -> None:
    data: dict[str, object] = {"backends": [{"name": "a", "url": "http://h", "dialect": written}]}
    assert said(data).endswith(f'got the text "{written}"; did you mean "{meant}"?')
