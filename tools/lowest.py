"""Print what pyproject.toml asks for in the lowest versions that it allows, one a line, as pip takes constraints."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8"))


def lowest() -> list[str]:
    """Of what running and testing need; what only looks at the sources may be newer."""
    project = PROJECT["project"]
    needs = {*project["dependencies"], *project["optional-dependencies"]["dev"]}
    found = (re.match(r"([\w.-]+)>=([\d.]+)", need) for need in sorted(needs))
    return [f"{one[1]}=={one[2]}" for one in found if one and one[1] not in ("hatchling", "mypy", "ruff")]


if __name__ == "__main__":
    print("\n".join(lowest()))
