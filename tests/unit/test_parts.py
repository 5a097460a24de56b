"""A change of the configuration: prepared without effect, then committed."""

from __future__ import annotations

from gateway.parts import BalancerSet, backend_table, keyring, slots
from gateway.scheduling.balancers.least_busy import LeastBusy
from gateway.scheduling.balancers.round_robin import RoundRobin
from tests.support.stack import configured

CARDS = {"a": ("http://a:80", "openai"), "b": ("http://b:80", "openai")}


def over(balance: str, model: str = "m") -> str:
    return f'[[models]]\nname = "{model}"\nbalance = "{balance}"\n'


def test_balancer_of_a_model_is_kept_while_its_policy_is_the_same() -> None:
    balancers = BalancerSet(lambda: 0.5)
    first = balancers.made_for(configured(CARDS, over("round-robin")))
    balancers.keep(first)
    assert balancers.made_for(configured(CARDS, over("round-robin")))["m"][1] is first["m"][1]
    changed = balancers.made_for(configured(CARDS, over("least-busy")))["m"][1]
    assert isinstance(first["m"][1], RoundRobin)
    assert isinstance(changed, LeastBusy)


def test_preparing_balancers_changes_nothing_until_they_are_kept() -> None:
    balancers = BalancerSet(lambda: 0.5)
    first = balancers.made_for(configured(CARDS, over("round-robin")))
    balancers.keep(first)
    balancers.made_for(configured(CARDS, over("least-busy")))
    assert balancers.made_for(configured(CARDS, over("round-robin")))["m"][1] is first["m"][1]


def test_balancer_of_a_removed_model_is_forgotten() -> None:
    balancers = BalancerSet(lambda: 0.5)
    first = balancers.made_for(configured(CARDS, over("round-robin")))
    balancers.keep(first)
    balancers.keep(balancers.made_for(configured(CARDS, serves={"a": "other", "b": "other"})))
    assert balancers.made_for(configured(CARDS, over("round-robin")))["m"][1] is not first["m"][1]


def test_backend_table_has_slots_and_models_of_the_configuration() -> None:
    settings = configured(CARDS, over("round-robin"))
    table = backend_table(settings, BalancerSet(lambda: 0.5).made_for(settings))
    assert table.slots == slots(settings) == {"a": 8, "b": 8}
    assert dict(table.models) == {"m": ("a", "b")}


def test_keyring_is_none_where_no_key_is_required() -> None:
    assert keyring(configured(CARDS)) is None
