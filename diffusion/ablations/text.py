"""Results of an ablation as text: the sentence of a verdict, warnings, labels and numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from diffusion.ablations.comparison import Difference, Effect
from diffusion.ablations.result import Result
from diffusion.evaluation.uncertainty import Estimate
from temporal_zoo._support.units import size


def verdict(effect: Effect) -> str:
    """The verdict on a contrast: the difference, its interval, and the numbers of seeds and pairs of cells."""
    (first, second), gap, measure = effect.contrast.names, effect.overall, measure_label(effect.measure)
    if gap is None:
        return f"{first} against {second}: no verdict on the {measure} yet, because no seed has all pairs of cells."
    basis = f"{count_text(len(gap.seeds), 'seed')} x {count_text(len(effect.parts), 'pair')} of cells"
    if gap.shown.margin is None:
        measured = f"{first} against {second}: {difference_text(gap)} in the {measure} ({basis})."
        return f"{measured} One seed gives no interval, so nothing is shown."
    basis = f"95 % interval, {basis}"
    if gap.lower:
        return f"{first} lowers the {measure} by {difference_text(gap, signed=False)} against {second} ({basis})."
    if gap.higher:
        measured = f"{first} raises the {measure} by {difference_text(gap, signed=False)} against {second} ({basis})."
        return f"{measured} The claim was that it lowers it."
    return f"{first} against {second}: no difference shown in the {measure}: {difference_text(gap)} ({basis})."


def version_warning(results: Sequence[Result]) -> str | None:
    """A warning where different versions of the code computed the results, with the number for each; else None."""
    counts = Counter(result.sources or "unknown" for result in results)
    if len(counts) < 2:
        return None
    listed = ", ".join(f"{count} by {sources}" for sources, count in counts.most_common())
    return (
        f"Different versions of the source files computed these results ({listed}). To compute all results with the "
        "present version, choose another folder with --out."
    )


def difference_text(gap: Difference, *, signed: bool = True) -> str:
    """A difference with its interval: relative where possible, else absolute."""
    shown = gap.shown if signed or gap.shown.value > 0 else Estimate(-gap.shown.value, gap.shown.margin)
    if gap.relative:
        return percent_text(shown, signed=signed)
    style = "+.3g" if signed else ".3g"
    return f"{shown.value:{style}}{interval_text(shown, style)}"


def percent_text(fraction: Estimate, *, signed: bool = True) -> str:
    """A fraction as a percentage, with the ends of its 95 % interval: "-3.1 % (-4.2 to -2.0)"."""
    percent = Estimate(100 * fraction.value, None if fraction.margin is None else 100 * fraction.margin)
    coarse = abs(percent.value if percent.margin is None else percent.margin)
    decimals = min(4, max(1, -math.floor(math.log10(coarse)))) if coarse else 1
    style = f"{'+' if signed else ''}.{decimals}f"
    return f"{percent.value:{style}} %{interval_text(percent, style)}"


def interval_text(estimate: Estimate, style: str) -> str:
    """The ends of a 95 % interval, such as " (-4.2 to -2.0)"; empty without one.

    Args:
        style: a format of numbers, such as "+.3g".
    """
    if estimate.margin is None:
        return ""
    return f" ({estimate.value - estimate.margin:{style}} to {estimate.value + estimate.margin:{style}})"


def measure_label(name: str) -> str:
    """The name of a measure in sentences and on axes."""
    return {"held_out": "held-out loss", "fvd": "FVD"}.get(name, name.replace("_", " "))


def cost_label(name: str) -> str:
    """The name of a cost in columns and on axes."""
    labels = {"stored_bytes": "stored for backward, one clip", "step_s": "seconds per training step"}
    return labels.get(name, name.replace("_", " "))


def cost_text(name: str, value: float) -> str:
    """A cost; bytes have a unit, and the label of other costs names it."""
    if name.endswith("_bytes"):
        return size(value)
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def count_text(number: int, noun: str) -> str:
    """A number with its noun, such as "1 seed" or "3 seeds"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
