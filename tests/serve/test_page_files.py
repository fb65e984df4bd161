"""What the page is made of, and what of it others wrote."""

import re
from hashlib import sha256
from pathlib import Path

import pytest

import edgeq
from edgeq.serve.page_files import FILES, SCRIPTS

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = Path(edgeq.__file__).parent / "serve" / "page"
OWN = [name for name in SCRIPTS if "/" not in name]
ROW = re.compile(r"\| `([\w.]+)` \| (\S+) \| ([\d.]+) \| \[([\w.-]+)\]\(([\w.]+)\) \| `([0-9a-f]{64})` \|")
VENDORED = ROW.findall((FOLDER / "vendor" / "README.md").read_text(encoding="utf-8"))


def script(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES)
def test_files_come_with_what_keeps_others_out(served, path):
    answer = served.http.get(path)
    name, kind = FILES[path]
    assert answer.status_code == 200 and answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"].startswith(kind)
    policy = [part.strip() for part in answer.headers["content-security-policy"].split(";")]
    assert policy[0] == "default-src 'self'" and "require-trusted-types-for 'script'" in policy
    assert not [part for part in policy if "unsafe" in part or "*" in part or "http" in part]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_it_is_made_of_these_files_alone():
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    beside = {"vendor/README.md", *(f"vendor/{licence}" for *_, licence, _ in VENDORED)}
    assert there == {name for name, _ in FILES.values()} | beside
    html = script("page.html")
    named = {*re.findall(r'(?:src|href)="([^"]+)"', html)}
    imported = {
        found
        for name in OWN
        for found in re.findall(r'^import .*?"\./([^"]+)";|import\("\./([^"]+)"\)', script(name), re.MULTILINE)
    }
    assert named | {one or other for one, other in imported} == {path.removeprefix("/") for path in FILES} - {""}
    assert " style=" not in html and not re.search(r"\son\w+=", html), "the policy forbids these"


@pytest.mark.parametrize("name", OWN)
def test_markup_of_strangers_goes_through_one_door(name):
    for never in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert never not in script(name)
    assert ("DOMPurify" in script(name)) == (name == "markdown.js")


def test_elements_that_the_scripts_want_are_there():
    wanted = {found for name in OWN for found in re.findall(r'\$\("(\w+)"\)', script(name))}
    fields = re.search(r"FIELDS = (.*);", script("settings.js"))
    assert fields
    wanted |= {*re.findall(r'"(\w+)"', fields[1])}
    there = {*re.findall(r'id="(\w+)"', script("page.html"))}
    assert wanted == there


def test_what_others_wrote_is_what_it_says():
    """Files of the packages and versions that the table names, with their licences."""
    assert [name for name, *_ in VENDORED] == [name.removeprefix("vendor/") for name in SCRIPTS if "/" in name]
    for name, _, version, licence, beside, hashed in VENDORED:
        content = (FOLDER / "vendor" / name).read_bytes()
        assert sha256(content).hexdigest() == hashed, f"{name} is not what the table says"
        assert version.encode() in content[:4000], f"{name} does not name its version"
        text = (FOLDER / "vendor" / beside).read_text(encoding="utf-8")
        words = {"MIT": "Permission is hereby granted", "Apache-2.0": "Apache License", "BSD-3-Clause": "BSD 3-Clause"}
        assert words[licence] in text


def test_the_wheel_has_them_with_their_licences():
    builders = pytest.importorskip("hatchling.builders.wheel", reason="pip install hatchling")
    builder = builders.WheelBuilder(str(REPOSITORY))
    there = {file.distribution_path for file in builder.recurse_included_files()}
    assert {f"edgeq/serve/page/{name}" for name, _ in FILES.values()} <= there
    core = builder.metadata.core
    assert {f"edgeq/serve/page/vendor/{row[4]}" for row in VENDORED} < {*core.license_files}
    assert {row[3] for row in VENDORED} == {*core.license_expression.split(" AND ")}
