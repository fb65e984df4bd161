"""What training a prepared model needs: groups of parameters, and the loss to the float model."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from edgeq.qat.rounded_layers import Rounding

VECTORS = 1e-3  # of a norm's or a bias' size is what one step of its kind is taken to be


def parameter_groups(model: nn.Module, lr: float = 0.02, scales: float = 0.2) -> list[dict[str, Any]]:
    """Groups for an optimizer whose steps are about `lr` large (Adam and its relatives), each with a rate of its own:
    `lr` counts in steps of the grid. At 0.02 a weight crosses from one code to the next in 50 steps that agree.

    Scales and mins, where they are learned, move by `scales` of what would move the codes farthest from zero by `lr`.
    Vectors move by `lr` thousandths of their size. Nothing decays: weights have their place on the grid.
    """
    groups, seen = [], set[int]()
    for layer in model.modules():
        rounding = getattr(layer, "rounding", None)
        if not isinstance(rounding, Rounding) or id(layer.weight) in seen:
            continue
        seen.add(id(layer.weight))
        step = max(piece.step() for piece in rounding.pieces) or _size(layer.weight) / 1000
        groups.append({"params": [layer.weight], "lr": lr * step, "weight_decay": 0.0})
        for piece in rounding.pieces:
            learned = [one for one in piece.parameters() if one.requires_grad]
            seen |= {id(one) for one in piece.parameters()}
            if learned:
                farthest = max(map(abs, piece.ends))
                groups.append({"params": learned, "lr": lr * scales * step / farthest, "weight_decay": 0.0})
    rest = [one for one in model.parameters() if id(one) not in seen and one.requires_grad]
    groups += [{"params": [one], "lr": lr * VECTORS * _size(one), "weight_decay": 0.0} for one in rest]
    return groups


def _size(weight: Tensor) -> float:
    """The root of the mean square, or a little where that is nothing."""
    return max(float(weight.detach().square().mean().sqrt()), 1e-6)


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """The mean of KL(teacher || student) in nats over positions; logits f32 [..., vocabulary].

    mask: bool [...], which positions count; all where there is none
    """
    ours = functional.log_softmax(student_logits.float() / temperature, -1)
    theirs = functional.log_softmax(teacher_logits.float() / temperature, -1)
    each = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    counted = each if mask is None else each[mask]
    return counted.mean() * temperature**2
