"""What the table of another server's tests says is there, is there."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_the_numbers_add_up_and_the_tests_exist():
    table = (HERE / "llama_server.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| test_")
    ]
    tests = "\n".join(path.read_text(encoding="utf-8") for path in HERE.parent.rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)", tests, re.M))
    for name, every, shown, by, absent, why in rows:
        assert int(every) == int(shown) + int(absent), name
        named = set(re.findall(r"test_\w+", by))
        assert named <= there, f"{name}: {named - there}"
        assert bool(named) == (int(shown) > 0) and bool(why) == (int(absent) > 0), name
    assert len(rows) == 27 and sum(int(row[1]) for row in rows) == 251
