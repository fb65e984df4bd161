"""What training a prepared model needs: groups of parameters, and the loss to the float model."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from edgeq.qat.rounded_layers import Rounding

PLAIN_STEPS = 100  # of a matrix in F16 or BF16 the distance between codes is taken to be such a part of its size


def parameter_groups(
    model: nn.Module,
    lr: float = 0.002,
    scales: float = 0.001,
    vectors: float = 0.001,
    adapters: float = 2e-4,
) -> list[dict[str, Any]]:
    """Groups for an optimizer whose steps are about as large as the rate (Adam and its relatives), each with one of its
    own: what moves a weight by `lr` of the distance between two codes, scales and mins, where they are learned, by
    `scales` of a scale's size, and norms and biases by `vectors` of theirs; what adapters hold moves by `adapters`.

    At 0.002 a weight goes over to the next code in 250 steps that agree. In a short training scales and vectors gain
    most: `lr=0` leaves weights as they are. Nothing decays: weights have their place on the grid.
    """
    groups, seen = [], set[int]()
    for layer in model.modules():
        rounding = getattr(layer, "rounding", None)
        if not isinstance(rounding, Rounding) or id(layer.weight) in seen:
            continue
        seen.add(id(layer.weight))
        adapter = getattr(layer, "adapter", None)
        if adapter is not None:
            seen |= {id(one) for one in adapter.parameters()}
            groups.append(_group([*adapter.parameters()], adapters))
        if not layer.weight.requires_grad:
            continue
        step = max(piece.step() for piece in rounding.pieces) or _size(layer.weight) / PLAIN_STEPS
        groups.append(_group([layer.weight], lr * step))
        for piece in rounding.pieces:
            learned = [one for one in piece.parameters() if one.requires_grad]
            seen |= {id(one) for one in piece.parameters()}
            if learned:
                groups.append(_group(learned, scales * _size(piece.scale)))
    rest = [one for one in model.parameters() if id(one) not in seen and one.requires_grad]
    groups += [_group([one], vectors * _size(one)) for one in rest]
    return [group for group in groups if group["lr"] > 0]


def _group(parameters: list[nn.Parameter], lr: float) -> dict[str, Any]:
    return {"params": parameters, "lr": lr, "weight_decay": 0.0}


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
