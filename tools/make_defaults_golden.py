"""Write tests/golden/defaults.json: what transformers makes of a configuration that says nothing.

    python tools/make_defaults_golden.py

Needs transformers. A row for each model that is supported: its class's own configuration; of a larger model the
`text_config` that one becomes which says nothing, or what it is of.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

REPOSITORY = Path(__file__).resolve().parents[1]
OUT = REPOSITORY / "tests" / "golden" / "defaults.json"
sys.path.insert(0, str(REPOSITORY))

from edgeq.models import SUPPORTED  # noqa: E402
from edgeq.models.wrapped import WRAPPED  # noqa: E402

NOISE = {"transformers_version", "dtype", "architectures", "_name_or_path", "use_cache", "initializer_range"}


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names, and configurations."""
    for name in SUPPORTED:
        if name not in CONFIG_MAPPING or "thinker_config" in CONFIG_MAPPING[name].sub_configs:
            continue  # what thinks has a row of its own
        if name in WRAPPED and "text_config" in CONFIG_MAPPING[name].sub_configs:
            yield name, text_of(name)
        else:
            yield name, CONFIG_MAPPING[name]().to_dict()


def text_of(outer: str) -> dict[str, Any]:
    """What a `text_config` becomes that says nothing; what it is of, where the class needs that."""
    try:
        found = CONFIG_MAPPING[outer](text_config={})
    except KeyError:
        found = CONFIG_MAPPING[outer](text_config={"model_type": WRAPPED[outer]})
    text: dict[str, Any] = found.text_config.to_dict()
    return text


def kept(config: dict[str, Any]) -> dict[str, Any]:
    """Without what is nothing, and no matter of the model's."""
    return {
        key: value
        for key, value in config.items()
        if value is not None and key not in NOISE and "token" not in key.replace("_per_tok", "") and "label" not in key
    }


def main() -> None:
    OUT.write_text("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(kept(row))}" for name, row in rows()) + "\n}\n")


if __name__ == "__main__":
    main()
