"""What the project's files say of one another is true."""

import re
import tomllib
from pathlib import Path

import click
import pytest

import edgeq
from edgeq.cli import VERBS, cli

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = ("edgeq/docs", "edgeq/serve/page/vendor", "formats", "bench")
PAGES = [
    *REPOSITORY.glob("*.md"),
    *(path for folder in FOLDERS for path in (REPOSITORY / folder).glob("*.md")),
]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
NOT_IN_GIT = ("edgeq/models/MODEL_TYPE.py", "edgeq/kernels/prebuilt/")  # a placeholder, and what a build makes
NAMED = re.compile(r"`((?:edgeq|tests|tools|bench|formats)/[\w/.-]+)`")


def test_the_version_is_the_same_everywhere():
    assert PROJECT["version"] == edgeq.__version__
    assert f"\n## {edgeq.__version__}\n" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_licences_are_there():
    """edgeq's own, and those of what others wrote: tests/serve/test_page_files.py looks at these."""
    own, others = PROJECT["license-files"]
    text = (REPOSITORY / own).read_text(encoding="utf-8")
    assert PROJECT["license"].startswith("MIT AND ") and text.startswith("MIT License\n")
    assert PROJECT["authors"][0]["name"] in text
    assert [*REPOSITORY.glob(others)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_and_named_files_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = [page.parent / link for link in LINK.findall(text)]
    named = [REPOSITORY / name for name in NAMED.findall(text) if name not in NOT_IN_GIT]
    named = [path for path in named if not path.stem.isupper()]  # a name that stands for one's own
    assert [str(path) for path in (*links, *named) if not path.exists()] == []


def test_what_contributing_names_in_a_file_is_there():
    """`NAME` of `path`."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    pairs = re.findall(r"`(\w+)`\s+(?:of|in)\s+`([\w/]+\.py)`", text)
    assert len(pairs) >= 6
    for name, path in pairs:
        assert re.search(rf"\b{name}\b", (REPOSITORY / path).read_text(encoding="utf-8")), f"{path}: no {name}"


def test_commands_are_what_the_program_knows():
    """Verbs of README, and the options that follow them."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    code = [*re.findall(r"```sh\n(.*?)```", text, re.DOTALL), *re.findall(r"`(edgeq [^`\n]+)`", text)]
    commands = [found for part in code for found in re.findall(r"(?<!\S)edgeq ([a-z]\w*)([^#|\n]*)", part)]
    assert commands
    for verb, rest in commands:
        assert verb in VERBS, verb
        command = cli.get_command(click.Context(cli), verb)
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", re.sub(r'"[^"]*"', "", rest)):
            assert option in known, f"edgeq {verb} {option}"
