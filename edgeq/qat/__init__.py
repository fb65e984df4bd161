"""Quantization-aware training: a torch model computes with the weights that its `.eqf` file will hold, to the bit,
while it is trained; the file is then what was trained.

Needs torch, and transformers for its models: `pip install edgeq[qat]`. Nothing else of edgeq imports this.

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from edgeq import qat

    teacher = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    qat.prepare(model, "Q2_K", start="calibrated.eqf", learned_scales=True)  # of edgeq convert --calibration
    model.gradient_checkpointing_enable()  # where memory is short
    optimizer = torch.optim.Adam(qat.parameter_groups(model), betas=(0.9, 0.95), eps=1e-12)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=STEPS)
    for tokens in batches:  # int64 [rows, tokens], STEPS of them
        with torch.no_grad():
            wanted = teacher(tokens).logits
        qat.distillation_loss(model(tokens).logits, wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    qat.convert(model, "trained.eqf")

With `adapters=16`, `prepare` freezes all that and trains low-rank adapters; `merge(model)` before `convert` adds them
to the weights, `save_adapters(model, FOLDER)` writes them as the `peft` library does.
"""

from edgeq.errors import UnsupportedError

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise UnsupportedError("edgeq.qat needs torch, which is not installed: pip install edgeq[qat]") from None

from edgeq.qat.adapters import merge, save_adapters
from edgeq.qat.converting import convert
from edgeq.qat.preparing import prepare
from edgeq.qat.rounded_layers import round_inputs
from edgeq.qat.training import distillation_loss, parameter_groups

__all__ = ["convert", "distillation_loss", "merge", "parameter_groups", "prepare", "round_inputs", "save_adapters"]
