import tomllib
from pathlib import Path

from gateway.config import Config, effective, parse

FULL = """
[server]
listen = "127.0.0.1:1"
[[models]]
name = "m$${x}\\"é"
aliases = ["x"]
timeouts = { total = 5 }
[health]
fall = 5
[[backends]]
name = "a"
url = "https://h:1"
dialect = "chatglm3"
models = ["m$${x}\\"é"]
api_key = "hunter2hunter2"
v3_stream = "safe"
[[backends]]
name = "b"
url = "http://h:2"
dialect = "chatglm2"
models = ["n"]
api_key_file = "k"
health = { path = "/docs?a=$$b", probes = false }
[[keys]]
name = "one"
key = "hunter2hunter3"
expires = 2027-01-31
[[keys]]
name = "two"
key_file = "k"
expires = 2027-01-31T12:00:00Z
"""


def read(text: str, folder: Path) -> Config:
    return parse(text, file="c", folder=folder, environ={})


def shown(tmp_path: Path) -> str:
    (tmp_path / "k").write_text("hunter2hunter4")
    return effective(read(FULL, tmp_path))


def test_the_effective_config_is_toml_without_secrets(tmp_path: Path) -> None:
    text = shown(tmp_path)
    data = tomllib.loads(text)
    assert "hunter2" not in text
    assert data["backends"][0]["api_key"] == "***"
    assert data["backends"][1]["api_key_file"] == str(tmp_path / "k")
    assert data["server"]["auth"] == "keys"
    assert data["queue"]["timeout"] == 60.0
    assert data["backends"][0]["slots"] == 1
    assert "# default_model is unset" in text


def test_the_effective_config_can_be_saved_once_secrets_are_put_back(tmp_path: Path) -> None:
    text = shown(tmp_path)
    saved = text.replace('key = "***"\nexpires', 'key = "hunter2hunter3"\nexpires').replace(
        "***", "hunter2hunter2"
    )
    again = read(saved.replace('key = "***"', 'key = "hunter2hunter3"'), tmp_path)
    assert effective(again) == text
    assert again.resolved_models == read(FULL, tmp_path).resolved_models
    assert again.keys == read(saved, tmp_path).keys


def test_keys_of_other_dialects_are_left_out(tmp_path: Path) -> None:
    backends = tomllib.loads(shown(tmp_path))["backends"]
    assert backends[0]["v3_stream"] == "safe"
    assert not {"v3_stream", "family", "glm4_join"} & backends[1].keys()


def test_the_time_outs_in_force_stand_in_comments() -> None:
    text = effective(
        parse(
            '[timeouts]\ntotal = 50\n[[models]]\nname = "m"\ntimeouts = { connect = 2 }\n'
            '[[backends]]\nname = "a"\nurl = "http://h:1"\ndialect = "openai"\nmodels = ["m"]\n'
            "timeouts = { first_token = 3 }\n",
            file="c",
            folder=Path(),
            environ={},
        )
    )
    assert "#   m on a: connect 2, first_token 3, between_tokens 30, total 50\n" in text
