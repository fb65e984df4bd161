"""The random checkpoints of every architecture belong to the tests of the models."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
