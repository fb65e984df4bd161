"""Write tests/golden/adapters/ and adapters.npz: small LoRA adapters that peft has made, and what transformers computes
with them in float32, for the tests to compare with.

    python tools/make_adapters.py

Needs torch, transformers and peft; edgeq needs none of them.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # peft would ask the Hub for the models that adapters name

import numpy as np
import peft
import torch
import transformers

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), *(str(REPOSITORY / "tests" / part) for part in ("models", "adapters"))]

import random_checkpoints  # noqa: E402
from adapter_cases import BOTH, CASES, GOLDEN, TOKENS, folder  # noqa: E402


def base(checkpoint: str, into: Path) -> Any:
    """The model of a random checkpoint, which is written `into` a folder."""
    random_checkpoints.write(checkpoint, into)
    return transformers.AutoModelForCausalLM.from_pretrained(into, dtype=torch.float32, attn_implementation="eager")


def make(case: str, into: Path) -> Any:
    """Save a random adapter `into` a folder; the model with it."""
    checkpoint, config = CASES[case]
    with tempfile.TemporaryDirectory() as temporary:
        model = base(checkpoint, Path(temporary))
    torch.manual_seed(list(CASES).index(case))
    wanted = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **config)
    model = peft.get_peft_model(model, wanted).eval()
    model.peft_config["default"].base_model_name_or_path = f"random/{checkpoint}"
    model.save_pretrained(into)
    (into / "README.md").unlink(missing_ok=True)
    return model


def logits(model: Any, checkpoint: str) -> np.ndarray:
    """f32 [TOKENS, vocabulary] of the beginning of a checkpoint's prompt."""
    prompt = random_checkpoints.make(checkpoint)[2][:TOKENS]
    with torch.no_grad():
        result: np.ndarray = model(torch.tensor([prompt])).logits[0].float().numpy()
    return result


def both() -> np.ndarray:
    """Those of two saved adapters with scales."""
    (first, _), (second, _) = BOTH
    checkpoint = CASES[first].checkpoint
    with tempfile.TemporaryDirectory() as temporary:
        model = base(checkpoint, Path(temporary))
    model = peft.PeftModel.from_pretrained(model, folder(first), adapter_name=first)
    model.load_adapter(folder(second), adapter_name=second)
    model.base_model.set_adapter([first, second])
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            for name, scale in BOTH:
                if name in module.scaling:
                    module.set_scale(name, scale)
    return logits(model.eval(), checkpoint)


def main() -> None:
    shutil.rmtree(GOLDEN / "adapters", ignore_errors=True)
    found = {case: logits(make(case, folder(case)), CASES[case].checkpoint) for case in CASES}
    found["both"] = both()
    np.savez_compressed(GOLDEN / "adapters.npz", **found)
    for case, values in found.items():
        print(f"{case}: logits within {np.abs(values).max():.2f}")


if __name__ == "__main__":
    main()
