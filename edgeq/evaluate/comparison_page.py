"""A comparison of all ways to quantize a model as one HTML page that needs nothing else."""

from edgeq.conversion.comparing import METHODS, Candidate, Comparison
from edgeq.evaluate import svg
from edgeq.evaluate.page import MIB, broken, document, estimate, outliers, table
from edgeq.evaluate.statistics import Estimate
from edgeq.version import VERSION

KINDS = (*METHODS, "simulated")


def comparison_page(comparison: Comparison, name: str) -> str:
    """The page, complete; `name` is the model's."""
    subject = (
        f"Beside the model as it is, {comparison.nbytes / MIB:.1f} MiB, at {comparison.positions} positions of text "
        "that nothing was quantized for."
    )
    if not comparison.complete:
        subject += " It was ended early: not all was tried."
    footer = f"edgeq {VERSION}. Numbers after ± are standard errors."
    return document(
        f"Ways to quantize {name}",
        subject,
        (_plot(comparison), _rows(comparison), outliers(comparison.outliers)),
        footer,
    )


def _kind(candidate: Candidate) -> str:
    return KINDS[-1] if candidate.simulated else candidate.method


def _plot(comparison: Comparison) -> str:
    """Loss over bytes; those that are worth having are named and joined."""
    front, found = comparison.front, comparison.candidates
    kinds = [kind for kind in KINDS if any(_kind(one) == kind for one in found)]
    points = {
        one: svg.Point(
            one.type if one in front else one.name,
            one.nbytes / MIB,
            one.loss.divergence,
            one.loss.error,
            kinds.index(_kind(one)),
            one not in front,
        )
        for one in found
    }
    text = (
        "<p>Lower is better, further left is smaller. Bars are one standard error. Of files no larger than those "
        "that are joined none loses less; point at a dot for its name.</p>"
    )
    plot = svg.scatter([*points.values()], "MiB", "mean KL divergence, nats", [points[one] for one in front])
    return f"<h2>Loss against bytes</h2>{text}{svg.legend(kinds)}{plot}"


def _rows(comparison: Comparison) -> str:
    header = ["", "MiB", "bits/weight", "mean KL", "same top", "perplexity", "error", "seconds"]
    rows, front = [], comparison.front
    for one in comparison.candidates:
        name = f"{broken(one.type)}<small>{_kind(one)}</small>"
        cells = [f"<strong>{name}</strong>" if one in front else name]
        cells += [f"{one.nbytes / MIB:.1f}", f"{one.bits_per_weight:.2f}"]
        cells += [estimate(Estimate(one.loss.divergence, one.loss.error), 5), f"{one.loss.same_top:.1%}"]
        rows.append(
            [
                *cells,
                f"× {one.loss.perplexity:.3f}",
                "" if one.error is None else f"{one.error:.2%}",
                f"{one.seconds:.1f}",
            ]
        )
    text = (
        "<p>Smallest first; of files no larger than one in bold none loses less. Smoothed: SmoothQuant's scales were "
        "folded in; static: activations have one scale per matrix, found before, in place of one per token. Simulated: "
        "edgeq has no such blocks; weights were rounded so, and bytes counted.</p>"
    )
    return f"<h2>All that was tried</h2>{text}{table(header, rows)}"
