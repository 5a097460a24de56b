"""The Dockerfile, read as text (no container engine is needed): what it promises about the image."""

import fnmatch
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def instructions() -> list[tuple[str, str]]:
    """All instructions in file order, each on one line."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    pairs = [line.partition(" ") for line in lines if line.strip()]
    return [(word, rest.strip()) for word, _, rest in pairs]


def final_stage() -> list[tuple[str, str]]:
    every = instructions()
    last = max(index for index, (word, _) in enumerate(every) if word == "FROM")
    return every[last:]


def only(stage: list[tuple[str, str]], name: str) -> str:
    (found,) = [rest for word, rest in stage if word == name]
    return found


def copied() -> list[str]:
    sources = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return [source for group in sources for source in group]


def default_of(name: str) -> str:
    (found,) = [
        rest.partition("=")[2]
        for word, rest in instructions()
        if word == "ARG" and rest.startswith(f"{name}=")
    ]
    return found


def test_both_stages_start_from_the_same_python() -> None:
    bases = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert bases == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", default_of("PYTHON_IMAGE"))


def test_the_user_is_a_number_and_not_root() -> None:
    user, _, group = only(final_stage(), "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


@pytest.mark.parametrize("name", ["ENTRYPOINT", "CMD"])
def test_the_gateway_itself_is_the_first_process(name: str) -> None:
    assert all(isinstance(word, str) for word in json.loads(only(final_stage(), name)))


def test_the_image_checks_its_own_health_without_a_shell() -> None:
    command = only(final_stage(), "HEALTHCHECK").partition(" CMD ")[2]
    assert json.loads(command) == ["gateway", "healthcheck"]


def test_the_image_is_stopped_by_the_signal_that_drains() -> None:
    assert only(final_stage(), "STOPSIGNAL") == "SIGTERM"


def test_the_final_stage_takes_the_finished_environment_and_runs_nothing() -> None:
    stage = final_stage()
    assert [rest for word, rest in stage if word == "COPY"] == ["--from=build /opt/gateway /opt/gateway"]
    assert "RUN" not in {word for word, _ in stage}


def test_packages_are_installed_by_hash_or_from_what_was_just_built() -> None:
    runs = " && ".join(rest for word, rest in instructions() if word == "RUN")
    installs = [command for command in runs.split(" && ") if " install " in command]
    assert len(installs) == 3
    assert all("--require-hashes" in command or "--no-index" in command for command in installs)


def test_the_build_sees_what_it_copies_and_little_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    admitted = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert lines[0] == "*"
    assert sorted(copied()) == sorted(admitted)
    assert not any(
        fnmatch.fnmatch(secret, name) for secret in (".env", ".git", "config.toml") for name in admitted
    )


def test_labels_name_version_and_licence() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', only(final_stage(), "LABEL")))
    assert {"title", "description", "licenses", "version", "revision"} <= labels.keys()
    assert labels["licenses"] == "Apache-2.0"
    assert default_of("VERSION") == VERSION


def test_every_manifest_names_the_image_of_this_version() -> None:
    def loaded(path: str) -> Any:
        return yaml.safe_load((ROOT / "deploy" / path).read_text())

    compose = loaded("compose/compose.yaml")["services"]["gateway"]["image"]
    overlays = [loaded(f"kubernetes/{name}/kustomization.yaml")["images"] for name in ("gateway", "sidecar")]
    tags = [image["newTag"] for images in overlays for image in images if image["name"] == "chatglm-gateway"]
    assert (compose, tags) == (f"chatglm-gateway:{VERSION}", [VERSION, VERSION])
