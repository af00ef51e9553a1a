"""The contract (docs/contract.md) against the code and the tests: every rule that is cited exists,
and so does every test that it names.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

# The pages are the same for every version of Python.
pytestmark = pytest.mark.once

REPOSITORY = Path(__file__).resolve().parents[2]
CONTRACT = REPOSITORY / "docs" / "contract.md"
RULE = "[a-z]+(?:-[a-z0-9]+)+"
CITATION = re.compile(rf"\bcontract: ({RULE}(?:, {RULE})*)?")
FOLDERS = ("build_oci", "tests", "benchmarks", "tools")
SOURCES = (".py", ".pyi", ".pyx", ".pxd", ".c", ".h", ".sh", "")


def rules() -> dict[str, str]:
    """The text of each rule, by its anchor."""
    _, *parts = re.split('^<a id="([^"]*)"></a>$', CONTRACT.read_text(), flags=re.M)
    names, texts = parts[::2], parts[1::2]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    return {name: text.split("\n## ")[0] for name, text in zip(names, texts, strict=True)}


@cache
def functions(path: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )


def test_every_rule_has_its_name_and_a_test() -> None:
    for name, text in rules().items():
        assert re.fullmatch(RULE, name), name
        assert text.startswith(f"\n**`{name}`** "), name
        assert "\n\n<small>Tests: `tests/" in text, name


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[^`:]*)::([^`]*)`", CONTRACT.read_text())
    assert named
    missing = [
        f"{path}::{test}" for path, test in named if test not in functions(REPOSITORY / path)
    ]
    assert missing == []


def test_every_rule_that_is_cited_exists() -> None:
    known = rules()
    wrong = []
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if (
                path.suffix not in SOURCES
                or not path.is_file()
                or path == Path(__file__).resolve()
                or "corpus" in path.parts
            ):
                continue
            for cited in CITATION.finditer(path.read_text(errors="replace")):
                names = cited[1].split(", ") if cited[1] else [""]
                wrong += [
                    f"{path.relative_to(REPOSITORY)}: {name or cited[0]}"
                    for name in names
                    if name not in known
                ]
    assert wrong == []
