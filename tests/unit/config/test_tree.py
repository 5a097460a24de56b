from typing import Any

import pytest

from gateway.config import Config


def backend(name: str, *models: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "url": "http://h", "dialect": "chatglm2", "models": list(models), **fields}


def config(**data: Any) -> Config:
    return Config.model_validate(data)


def test_models_need_not_be_declared() -> None:
    models = config(backends=[backend("a", "one", "two"), backend("b", "two", "three")]).resolved_models
    assert [(model.name, model.backends) for model in models] == [
        ("one", ("a",)),
        ("two", ("a", "b")),
        ("three", ("b",)),
    ]


def test_declared_models_come_first_and_keep_their_settings() -> None:
    models = config(
        models=[{"name": "two", "backends": ["b"], "max_n": 9}],
        backends=[backend("a", "one", "two"), backend("b")],
    ).resolved_models
    assert [(model.name, model.backends, model.max_n) for model in models] == [
        ("two", ("b", "a"), 9),
        ("one", ("a",), 4),
    ]


def test_names_hold_aliases_and_backends_come_in_order() -> None:
    made = config(
        models=[{"name": "one", "aliases": ["uno"]}], backends=[backend("a", "one"), backend("b", "one")]
    )
    assert made.names["uno"] is made.names["one"]
    assert [found.name for found in made.backends_of(made.names["uno"])] == ["a", "b"]


@pytest.mark.parametrize(
    ("auth", "keys", "needed"),
    [
        (None, [], False),
        (None, [{"name": "k", "key": "abcdefgh"}], True),
        ("keys", [{"name": "k", "key": "abcdefgh"}], True),
        ("none", [], False),
    ],
)
def test_keys_are_needed_once_there_are_some(
    auth: str | None, keys: list[dict[str, str]], *, needed: bool
) -> None:
    assert config(server={"auth": auth}, keys=keys).auth_required is needed


def test_the_time_outs_of_a_backend_win_over_its_model_and_these_over_the_global_ones() -> None:
    made = config(
        timeouts={"connect": 1, "first_token": 10, "total": 100},
        models=[{"name": "one", "timeouts": {"first_token": 20, "total": 200}}],
        backends=[backend("a", "one", timeouts={"total": 300})],
    )
    found = made.timeouts_for(made.names["one"], made.backends[0])
    assert (found.connect, found.first_token, found.total) == (1, 20, 300)


def test_the_fallbacks_of_fallbacks_follow_the_nearest_first() -> None:
    made = config(
        models=[
            {"name": "a", "fallbacks": ["b", "see"], "context_fallbacks": ["d"]},
            {"name": "b", "fallbacks": ["d", "c"]},
            {"name": "c", "aliases": ["see"]},
        ],
        backends=[backend("x", "a", "b", "c", "d")],
    )
    model = made.names["a"]
    assert [one.name for one in made.fallbacks_of(model, "outage")] == ["b", "c", "d"]
    assert [one.name for one in made.fallbacks_of(model, "context")] == ["d"]
    assert made.fallbacks_of(made.names["d"], "outage") == ()
    assert made.fallbacks_of(model, "outage")[0].backends == ("x",)
