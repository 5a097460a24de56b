"""Canary and shadow in the file: checked whole, each fault with its key and its mend."""

from pathlib import Path

import pytest

from gateway.config import CanarySettings, Config, ConfigError, ShadowSettings, effective, parse

BACKEND = '[[backends]]\nname = "a"\nurl = "http://h:1"\ndialect = "chatglm2"\nmodels = ["m", "n", "o"]\n'


def read(**models: str) -> Config:
    """The config with these lines in the tables of these models."""
    tables = [f'[[models]]\nname = "{name}"\n{lines}\n' for name, lines in models.items()]
    return parse(BACKEND + "".join(tables), file="c", folder=Path(), environ={})


def faults(**models: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(**models)
    return [f"{fault.key}: {fault.message}" for fault in caught.value.faults]


def test_both_are_read_with_their_defaults() -> None:
    model = read(m='canary = { model = "n", share = 0.05 }\nshadow = { model = "o", share = 1 }').models[0]
    assert model.canary == CanarySettings(model="n", share=0.05)
    assert model.shadow == ShadowSettings(model="o", share=1, at_once=4, timeout=120)


def test_neither_is_there_unless_it_is_asked_for() -> None:
    model = read(m="").models[0]
    assert (model.canary, model.shadow) == (None, None)


def test_what_is_shown_as_effective_can_be_read_again() -> None:
    config = read(
        m='canary = { model = "n", share = 0.05 }\nshadow = { model = "o", share = 0.5, at_once = 1 }'
    )
    again = parse(effective(config), file="c", folder=Path(), environ={})
    assert again.resolved_models == config.resolved_models


def test_a_canary_may_be_named_by_an_alias() -> None:
    config = read(m='canary = { model = "new", share = 0.5 }', n='aliases = ["new"]')
    assert config.models[0].canary is not None
    assert config.names[config.models[0].canary.model].name == "n"


@pytest.mark.parametrize("table", ["canary", "shadow"])
@pytest.mark.parametrize(
    ("value", "key", "message"),
    [
        pytest.param(
            '{ model = "x", share = 1 }', ".model", 'no model is named "x"; known: m, n, o', id="unknown"
        ),
        pytest.param('{ model = "n", share = 1.5 }', ".share", "must be at most 1, got", id="too-much"),
        pytest.param('{ model = "n", share = -0.1 }', ".share", "must be at least 0, got", id="negative"),
        pytest.param('{ model = "n", share = "5%" }', ".share", "a share is wanted, got the text", id="text"),
        pytest.param('{ model = "n" }', ".share", "missing; a share is wanted", id="no-share"),
        pytest.param("{ share = 0.1 }", ".model", "missing; a name without blanks is wanted", id="no-model"),
        pytest.param(
            '{ model = "n", shar = 0.1 }', ".shar", 'unknown key; did you mean "share"?', id="misspelled"
        ),
        pytest.param('"n"', "", "a table of model, share", id="no-table"),
    ],
)
def test_one_mistake_gives_one_fault_at_its_key(table: str, value: str, key: str, message: str) -> None:
    (fault,) = faults(m=f"{table} = {value}")
    assert fault.startswith(f"models[0].{table}{key}: {message}")


@pytest.mark.parametrize(
    ("models", "fault"),
    [
        pytest.param(
            {"m": 'canary = { model = "m", share = 1 }'},
            'models[0].canary.model: leads from "m" back to itself; remove it',
            id="canary-of-itself",
        ),
        pytest.param(
            {"m": 'aliases = ["x"]\ncanary = { model = "x", share = 1 }'},
            'models[0].canary.model: leads from "m" back to itself; remove it',
            id="by-an-alias",
        ),
        pytest.param(
            {
                "m": 'canary = { model = "n", share = 1 }',
                "n": 'canary = { model = "o", share = 1 }',
                "o": 'canary = { model = "m", share = 1 }',
            },
            'models[2].canary.model: leads from "o" back to itself; remove it',
            id="circle",
        ),
        pytest.param(
            {"m": 'shadow = { model = "m", share = 1 }'},
            'models[0].shadow.model: "m" would be its own shadow; name another model',
            id="shadow-of-itself",
        ),
        pytest.param(
            {"m": 'shadow = { model = "n", share = 1, at_once = 0 }'},
            "models[0].shadow.at_once: must be at least 1, got the number 0",
            id="no-copies",
        ),
        pytest.param(
            {"m": 'shadow = { model = "n", share = 1, timeout = 0 }'},
            "models[0].shadow.timeout: must be above 0, got the number 0",
            id="no-time",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(models: dict[str, str], fault: str) -> None:
    assert faults(**models) == [fault]


def test_what_may_be_meant_is_taken() -> None:
    config = read(
        m='canary = { model = "n", share = 0 }\nshadow = { model = "n", share = 1 }\nfallbacks = ["n"]',
        n='shadow = { model = "m", share = 1 }\ncanary = { model = "o", share = 1 }',
        o='fallbacks = ["m"]',
    )
    assert len(config.models) == 3
