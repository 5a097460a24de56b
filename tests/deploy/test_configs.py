"""Every config.toml that is shipped is one the gateway takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.config import load

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "config.toml", *sorted(ROOT.glob("deploy/**/config.toml"))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shipped_config_is_valid_with_its_secrets_in_place(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(path, tmp_path))
    (tmp_path / "keys").mkdir()
    for secret in (tmp_path / "keys" / "team-a", tmp_path / "team-a"):
        secret.write_text("sk-a-secret-of-the-team\n", encoding="utf-8")
    settings = load(copy, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert settings.resolved_models
    assert settings.server.address.is_local or settings.auth_required or settings.server.auth == "none"
