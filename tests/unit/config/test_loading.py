from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import Config, ConfigError, ConfigFault, effective, load, parse
from gateway.config.fault import ValueProblem
from gateway.config.messages import section_in
from gateway.config.partial import drafted

GOOD = """
[[backends]]
name = "gpu-0"
url = "http://127.0.0.1:8001"
dialect = "chatglm2"
models = ["chatglm2-6b"]
"""


def read(text: str, **environ: str) -> Config:
    return parse(text, file="config.toml", folder=Path(), environ=environ)


def faults(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, **environ)
    return [str(fault) for fault in caught.value.faults]


def test_the_smallest_file_is_enough() -> None:
    config = read(GOOD)
    assert [model.name for model in config.resolved_models] == ["chatglm2-6b"]
    assert not config.auth_required


def test_a_file_is_loaded_with_its_environment_and_secrets(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("abcdefgh\n")
    (tmp_path / "config.toml").write_text(
        GOOD.replace("8001", "${PORT}") + '[[keys]]\nname = "a"\nkey_file = "k"\n', encoding="utf-8-sig"
    )
    config = load(tmp_path / "config.toml", {"PORT": "9"})
    assert config.backends[0].url == "http://127.0.0.1:9"
    assert config.keys[0].key is not None
    assert config.keys[0].key.get_secret_value() == "abcdefgh"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "cannot be read: no such file or directory", id="missing"),
        pytest.param(None, "write one with `gateway init`", id="missing-and-how-to-make-one"),
        pytest.param("配置".encode("gbk"), "is not UTF-8", id="other-encoding"),
    ],
)
def test_an_unreadable_file_is_one_fault_without_a_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path, {})
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a = 1\nb = \n", 2, id="no-value"),
        pytest.param("a = 1\n\nb", 3, id="end-of-file"),
        pytest.param("[a]\n[a]\n", 2, id="table-twice"),
        pytest.param("a = " + "[" * 5000, 1, id="too-deep"),
    ],
)
def test_a_syntax_error_has_its_line(text: str, line: int) -> None:
    place, _, rest = faults(text)[0].partition(" ")
    assert place.split(":")[:2] == ["config.toml", str(line)]
    assert rest.startswith("no valid TOML: ")


def test_a_syntax_error_has_its_column_and_a_suggestion() -> None:
    assert faults("[server]\nauth = “none”\n") == [
        'config.toml:2:8: no valid TOML: "“" is no punctuation of TOML; write: auth = "none"'
    ]


PYDANTIC = ("pydantic", "Input should", "validation error", "Field required", "type=", "Extra inputs")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
        max_leaves=4,
    ),
    st.sampled_from(
        [
            (name, key)
            for name, field in Config.model_fields.items()
            for key in (section_in(field.annotation) or Config).model_fields
        ]
    ),
)
def test_no_message_is_pydantics(value: object, place: tuple[str, str]) -> None:
    table, key = place
    found: object = {key: value}
    data = {table: [found] if table in ("models", "backends", "keys") else found}
    complaints: list[ValueProblem] = []
    drafted(data, complaints)
    for complaint in complaints:
        assert not any(word in complaint.message for word in PYDANTIC), complaint


def test_all_faults_are_reported_at_once_in_file_order() -> None:
    text = """\
[timeouts]
total = "60"
first_tokn = 3
[[backends]]
name = "gpu-0"
url = "http://u:hunter2@127.0.0.1:8001"
dialct = "chatglm2"
models = ["a"]
[[backends]]
name = "gpu-0"
url = "http://127.0.0.1:8001"
dialect = "glm5"
models = ["a", 3]
[[keys]]
name = "k"
key = "id.hunter2"
[[keys]]
name = "k2"
key = "${NOPE}"
[admin]
listen = "0.0.0.0:8000"
"""
    assert faults(text) == [
        'config.toml:2: timeouts.total: a number of seconds is wanted, got the text "60"; write: 60',
        'config.toml:3: timeouts.first_tokn: unknown key; did you mean "first_token"?',
        (
            "config.toml:6: backends[0].url: the URL holds a name or password; "
            "put the key into api_key or api_key_file"
        ),
        'config.toml:7: backends[0].dialct: unknown key; did you mean "dialect"?',
        'config.toml:10: backends[1].name: "gpu-0" is already at backends[0].name; choose another name',
        (
            "config.toml:12: backends[1].dialect: one of chatglm, chatglm2, chatglm2-openai, chatglm3, "
            "chatglm3-native, glm4, glm4v, chatglm-cpp, chatglm-cpp-native, chatglm-stream, openai is wanted"
            ', got the text "glm5"; did you mean "glm4"?'
        ),
        "config.toml:13: backends[1].models[1]: a name without blanks is wanted, got the number 3",
        (
            "config.toml:16: keys[0].key: holds a dot; "
            "the zhipuai library would send a token made from it, not the key itself"
        ),
        (
            "config.toml:19: keys[1].key: the environment variable NOPE is not set; "
            "set it, or give a default: ${NOPE:-...}"
        ),
        (
            "config.toml:21: admin.listen: server.listen (127.0.0.1:8000) and admin.listen (0.0.0.0:8000) "
            "collide; give one another port"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            GOOD.replace("url", "ulr"),
            ['config.toml:4: backends[0].ulr: unknown key; did you mean "url"?'],
            id="a-misspelled-needed-key-is-one-fault",
        ),
        pytest.param(
            GOOD.replace("[[backends]]", "[[backend]]"),
            ['config.toml:2: backend: unknown key; did you mean "backends"?'],
            id="a-misspelled-table-is-one-fault",
        ),
        pytest.param(
            GOOD.replace("models =", "modles ="),
            ['config.toml:6: backends[0].modles: unknown key; did you mean "models"?'],
            id="a-misspelled-list-is-one-fault",
        ),
        pytest.param(
            GOOD + '[[models]]\nname = "m"\nbackends = "gpu-0"\n',
            [('config.toml:9: models[0].backends: a list of backend names is wanted, got the text "gpu-0"')],
            id="a-broken-list-hides-what-depends-on-it",
        ),
        pytest.param(
            GOOD.replace('dialect = "chatglm2"\n', ""),
            [
                (
                    "config.toml:2: backends[0].dialect: missing; one of chatglm, chatglm2, chatglm2-openai, "
                    "chatglm3, chatglm3-native, glm4, glm4v, chatglm-cpp, chatglm-cpp-native, "
                    "chatglm-stream, openai is wanted"
                )
            ],
            id="a-missing-key-is-at-its-table",
        ),
        pytest.param(
            '[server]\nlisten = "0.0.0.0:1"\nauth = "kyes"\n' + GOOD,
            [
                (
                    'config.toml:3: server.auth: one of keys, none is wanted, got the text "kyes"; '
                    'did you mean "keys"?'
                )
            ],
            id="a-broken-section-hides-what-depends-on-it",
        ),
        pytest.param(
            GOOD.replace('dialect = "chatglm2"\n', 'dialect = "chatglm2"\ntimeout = 30\n'),
            [
                (
                    'config.toml:6: backends[0].timeout: unknown key; did you mean "timeouts", '
                    "a table of connect, first_token, between_tokens, total?"
                )
            ],
            id="a-number-in-the-place-of-a-table-is-one-fault",
        ),
    ],
)
def test_one_mistake_gives_one_fault(text: str, expected: list[str]) -> None:
    assert faults(text) == expected


def faults_of(text: str) -> tuple[ConfigFault, ...]:
    try:
        assert effective(read(text))
    except ConfigError as error:
        return error.faults
    return ()


NAMES = st.sampled_from(
    ["name", "url", "dialect", "models", "key", "keys", "backends", "tls", "api_key", "x"]
)
ANYTHING = st.recursive(
    st.one_of(
        st.none().map(lambda _: True), st.integers(), st.floats(), st.text(max_size=5), st.just("chatglm3")
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


def as_toml(value: Any) -> str:
    """Write plain data as one-line TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {as_toml(item)}' for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    return repr(value)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.dictionaries(
        st.sampled_from(["server", "backends", "backend", "models", "keys", "timeouts", "queue", "y"]),
        ANYTHING,
    )
)
def test_whatever_a_file_holds_it_is_a_config_or_a_list_of_faults(data: dict[str, Any]) -> None:
    text = "".join(f"{key} = {as_toml(value)}\n" for key, value in data.items())
    lines = [fault.line for fault in faults_of(text)]
    assert all(1 <= line <= max(1, len(data)) for line in lines)
