"""Write tests/golden/configurations.json: what transformers saves of configurations, for tests of their spellings.

    python tools/make_config_golden.py

Needs torch and transformers. It reads every case of tests/models and saves it, under the names and in the places that
it has for things; and with each key, one after the other, of another value that makes another model of it here. Kept is
what is saved otherwise than the case has it, and of a changed one, otherwise than of the case.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

REPOSITORY = Path(__file__).resolve().parents[1]
OUT = REPOSITORY / "tests" / "golden" / "configurations.json"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "models")]

from architecture_cases import CASES  # noqa: E402
from encoder_cases import ENCODERS  # noqa: E402

from edgeq.errors import EdgeqError  # noqa: E402
from edgeq.models import architecture  # noqa: E402

NOISE = ("transformers_version", "dtype", "architectures", "_name_or_path", "use_cache", "initializer_range")


def saved(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers saves of a config.json."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        transformers.AutoConfig.from_pretrained(folder).save_pretrained(folder)
        return {key: value for key, value in json.loads(path.read_text()).items() if key not in NOISE}


def others(value: Any) -> Iterator[Any]:
    """Values that might stand for this one."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (2 * value, value + 1, value // 2)
    elif isinstance(value, float):
        yield value * 1.25
    elif isinstance(value, str):
        yield from ("relu", "gelu_pytorch_tanh", "silu")
    elif isinstance(value, list):
        yield from (value[1:] + value[:1], value[::-1], [value[0]] * len(value) if value else [])
    elif value is None:
        yield from (24, 0.75, True)


def changed(name: str, config: dict[str, Any], key: str, usual: dict[str, Any]) -> dict[str, Any] | None:
    """A value of `key` that makes another model, and what is saved of that otherwise than `usual`; None if there is
    none."""
    for value in others(config.get(key, usual.get(key))):
        try:
            if architecture({**config, key: value}) == architecture(config):
                continue
        except (EdgeqError, TypeError):
            continue
        try:
            there = saved({**config, key: value})
        except Exception as error:  # whatever it finds wrong with the value, another may do
            print(f"{name}: {key} {value}: {str(error).splitlines()[-1][:100]}")
            continue
        return {"value": value, **difference(usual, there)}
    return None


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What `after` has otherwise, and what it has no more."""
    return {
        "saved": {key: value for key, value in after.items() if before.get(key, "") != value},
        "left out": [key for key in before if key not in after],
    }


def main() -> None:
    found, seen = [], set()
    for name, config in (CASES | ENCODERS).items():
        if config["model_type"] not in transformers.CONFIG_MAPPING:
            continue
        usual, changes = saved(config), {}
        for key in sorted({*usual, *config} - {"model_type", *NOISE}):
            change = None if (config["model_type"], key) in seen else changed(name, config, key, usual)
            if change:
                seen.add((config["model_type"], key))
                changes[key] = change
        found.append(f"{json.dumps(name)}: {json.dumps(difference(config, usual) | {'changes': changes})}")
        print(f"{name}: {', '.join(changes)}")
    OUT.write_text("{\n" + ",\n".join(found) + "\n}\n")


if __name__ == "__main__":
    main()
