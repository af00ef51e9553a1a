"""tools/release.py: what the workflows of a release need, and its author beforehand.

tools/release.py notes VERSION: prints the section of VERSION of CHANGELOG.md; an error if there is
none or it is empty. tools/release.py links URL: makes the links of README.md absolute, below URL,
and adds the URLs of the project to pyproject.toml.
"""

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def notes(version: str) -> str:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## \[|\Z)",
        changelog,
        re.M | re.S,
    )
    if not found or not found[1].strip():
        sys.exit(
            f"tools/release.py: CHANGELOG.md: has no section `## [{version}] - YYYY-MM-DD` with"
            " text in it"
        )
    return found[1].strip()


def absolute(readme: str, url: str) -> str:
    """README with every link to a file of the repository below URL; those that lead elsewhere
    stay.
    """
    return re.sub(r"\]\((?![a-z]+:|#)([^)]+)\)", rf"]({url}/blob/HEAD/\1)", readme)


def links(url: str) -> None:
    url = url.rstrip("/")
    readme, project = REPOSITORY / "README.md", REPOSITORY / "pyproject.toml"
    readme.write_text(absolute(readme.read_text(encoding="utf-8"), url), encoding="utf-8")
    urls = (
        f'[project.urls]\nRepository = "{url}"\nIssues = "{url}/issues"\nChangelog ='
        f' "{url}/blob/HEAD/CHANGELOG.md"\n'
    )
    text = project.read_text(encoding="utf-8")
    if "[project.urls]" not in text:
        project.write_text(
            text.replace(
                "[project.optional-dependencies]", f"{urls}\n[project.optional-dependencies]", 1
            ),
            encoding="utf-8",
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["notes", version]:
            print(notes(version))
        case ["links", url]:
            links(url)
        case _:
            sys.exit(__doc__)
