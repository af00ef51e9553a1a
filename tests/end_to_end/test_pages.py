"""The pages for users: their links lead somewhere, every page is in the menu of the web site, and a
release can be made of them.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.once

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#]+)")
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.fixture
def release() -> ModuleType:
    path = REPOSITORY / "tools" / "release.py"
    if not path.exists():
        pytest.skip("the tools of the checkout are not here")
    spec = importlib.util.spec_from_file_location("release", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    if not (REPOSITORY / "CHANGELOG.md").exists():
        pytest.skip("only a part of the checkout is here")
    assert [
        link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()
    ] == []


def test_every_page_is_in_the_menu() -> None:
    def pages(menu: Any) -> list[str]:
        if isinstance(menu, str):
            return [menu]
        return [
            page
            for item in (menu.values() if isinstance(menu, dict) else menu)
            for page in pages(item)
        ]

    if not (REPOSITORY / "mkdocs.yml").exists():
        pytest.skip("only a part of the checkout is here")
    menu = pages(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"])
    assert sorted(menu) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_a_release_has_absolute_links(release: ModuleType) -> None:
    """The package index shows the README without the repository."""
    readme = release.absolute(
        (REPOSITORY / "README.md").read_text(), "https://host.example/project"
    )
    assert LINK.findall(readme) == []
    assert "(https://host.example/project/blob/HEAD/docs/contract.md)" in readme
    assert "(https://github.com/opencontainers/image-spec)" in readme


def test_a_release_has_notes(
    release: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(release, "REPOSITORY", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(
        "# C\n\n## [Unreleased]\n\n## [0.2.0] - 2026-01-02\n\nnew\n\n## [0.1.0] -"
        " 2026-01-01\n\nold\n"
    )
    assert release.notes("0.2.0") == "new"
    assert release.notes("0.1.0") == "old"
    for version in ("Unreleased", "0.1", "0x1.0"):
        with pytest.raises(SystemExit):
            release.notes(version)
