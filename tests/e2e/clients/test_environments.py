"""The environments of the foreign clients: installed is what the locks say, and every program starts there.

`make clients` makes them, `make test-clients` demands them; elsewhere these tests skip.
"""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.programs import python_of

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PROGRAMS = {
    "openai1": ["openai_modern"],
    "openai0": ["openai_legacy"],
    "langchain": ["langchain_openai_chat", "langchain_chatglm3", "langchain_chatglm"],
}
LIST_PACKAGES = (
    "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
)

pytestmark = pytest.mark.clients


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_environment_holds_exactly_what_its_lock_pins_for_this_platform(name: str) -> None:
    installed = {
        canonicalize_name(key): version
        for key, version in json.loads(output(python_of(name), "-c", LIST_PACKAGES)).items()
    }
    lines = (ROOT / "requirements" / "clients" / f"{name}.txt").read_text().splitlines()
    demands = [Requirement(line.removesuffix("\\").strip()) for line in lines if line[:1].isalnum()]
    wanted = {
        canonicalize_name(demand.name): str(demand.specifier).removeprefix("==")
        for demand in demands
        if demand.marker is None or demand.marker.evaluate()
    }
    assert {key: version for key, version in installed.items() if key not in {"pip", "setuptools"}} == wanted


@pytest.mark.parametrize(
    ("name", "program"), [(name, program) for name in PROGRAMS for program in PROGRAMS[name]]
)
def test_a_client_program_starts_in_its_environment(name: str, program: str) -> None:
    assert "--url" in output(python_of(name), str(HERE / f"{program}.py"), "--help")


def test_the_newest_sdk_of_the_development_environment_runs_the_modern_program() -> None:
    assert "--url" in output(sys.executable, str(HERE / "openai_modern.py"), "--help")
    assert int(importlib.metadata.version("openai").partition(".")[0]) >= 3
