"""Metrics and findings in words. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmtool.page.contents import TargetPart

Metric = Mapping[str, float]
ABOUT = {
    "accuracy": ("Accuracy", "share of rows with the right answer"),
    "balanced_accuracy": ("Balanced accuracy", "mean recall of the classes, so that rare ones count as much"),
    "f1_macro": ("F1, macro", "balance of precision and recall, every class counting the same"),
    "f1_micro": ("F1, micro", "balance of precision and recall over all decisions"),
    "f1_weighted": ("F1, weighted", "F1 of the classes, weighted by their rows"),
    "precision_macro": ("Precision, macro", "share of the answers that are right, every class counting the same"),
    "precision_micro": ("Precision, micro", "share of all answers that are right"),
    "precision_weighted": ("Precision, weighted", "precision of the classes, weighted by their rows"),
    "recall_macro": ("Recall, macro", "share of a class that is found, every class counting the same"),
    "recall_micro": ("Recall, micro", "share of all true labels that are found"),
    "recall_weighted": ("Recall, weighted", "recall of the classes, weighted by their rows"),
    "roc_auc": ("ROC AUC", "chance that a row of a class is ranked above one of another; 0.5 is a coin"),
    "average_precision": ("Average precision", "area under the precision-recall curve, mean of the classes"),
    "log_loss": ("Log loss", "penalty for giving the truth a small probability; 0 is perfect"),
    "brier": ("Brier score", "squared error of the probabilities; 0 is perfect"),
    "calibration_error": ("Calibration error", "mean gap between stated and real confidence; 0 is perfect"),
    "subset_accuracy": ("Exact match", "share of rows whose tags are all right"),
    "hamming_loss": ("Hamming loss", "share of single tag decisions that are wrong"),
    "mae": ("MAE", "mean distance from the truth, in the target's unit"),
    "rmse": ("RMSE", "root of the mean squared error, in the target's unit; large errors count more"),
    "r2": ("R²", "share of the target's variance that is explained; 0 is no better than the mean"),
    "spearman": ("Spearman", "how well the order is right; 1 is perfect, 0 is chance"),
}
LESS_IS_BETTER = {"log_loss", "brier", "calibration_error", "hamming_loss", "mae", "rmse"}
FIRST = ("accuracy", "subset_accuracy", "f1_micro", "f1_macro", "r2", "mae", "rmse", "roc_auc", "log_loss")
WITHOUT, SINGLE = "without_inputs", "best_single_input:"


def title_of(metric: str) -> str:
    """A metric's name for people."""
    return ABOUT.get(metric, (metric, ""))[0]


def greater(part: TargetPart, metric: str) -> bool:
    """Is more of it better?"""
    return part.greater_is_better if metric == part.main_metric else metric not in LESS_IS_BETTER


def chosen(part: TargetPart) -> str | None:
    """The metric that the page is about: the task's own, else the best known that means something on these rows."""
    found = part.metrics.get("overall", {})
    return next((m for m in (part.main_metric, *FIRST, *sorted(found)) if m in found), None)


def number(value: float, size: float | None = None) -> str:
    """Three decimals, or about four digits where three decimals would say too much or nothing, told by `size` or the value."""
    size = abs(value) if size is None else size
    if not math.isfinite(value) or size >= 1e6 or 0 < size < 5e-4:
        text = f"{value:.3g}"
    elif size >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.1f}" if size >= 100 else f"{value:.2f}" if size >= 10 else f"{value:.3f}"
    return (text.lstrip("-") if not text.strip("-0.") else text).replace("-", "−")  # no minus before nothing


def interval(metric: Metric) -> str:
    """`0.853 to 0.947`."""
    size = max(abs(metric[key]) for key in ("low", "value", "high"))
    return f"{number(metric['low'], size)} to {number(metric['high'], size)}"


def with_interval(metric: Metric) -> str:
    """`0.900 [0.853 to 0.947]`."""
    return f"{number(metric['value'])} [{interval(metric)}]"


def name_of(key: str) -> str:
    """A row of the table of inputs, in words."""
    if key == WITHOUT:
        return "no input"
    return " + ".join(key.split("+"))


def lines(part: TargetPart) -> list[tuple[str, str, Mapping[str, Metric]]]:
    """All rows, each subset of inputs, and no input: name, small print, metrics. A subset that is all rows has one line."""
    overall = part.metrics["overall"]
    subsets = part.metrics.get("by_inputs", {})
    same = next((key for key, found in subsets.items() if found == overall), None)
    out = [("all rows", "with the inputs that each has", overall) if same is None else
           (name_of(same), "all rows", overall)]
    out += [(name_of(key), "", found) for key, found in subsets.items() if key != same]
    nothing = part.metrics.get("baselines", {}).get(WITHOUT)
    return out + ([(name_of(WITHOUT), "the same answer for every row", nothing)] if nothing else [])


def sentences(part: TargetPart) -> list[str]:
    """What matters, in words: the main metric, what it is without inputs, what the best single input reaches."""
    metric = chosen(part)
    if metric is None:
        return ["No metric means anything on these rows."]
    whole, up = part.metrics["overall"][metric], greater(part, metric)
    about = ABOUT.get(metric, ("", ""))[1]
    rows = f"{len(part.predictions):,} row{'' if len(part.predictions) == 1 else 's'}"
    out = [f"{title_of(metric)} is {number(whole['value'])} on {rows} (95 % interval: {interval(whole)})"
           + (f": {about}." if about else ".")]
    out += _against_nothing(part, metric, whole, up)
    return out + _against_single(part, metric, up)


def _against_nothing(part: TargetPart, metric: str, whole: Metric, up: bool) -> list[str]:
    nothing = part.metrics.get("baselines", {}).get(WITHOUT, {}).get(metric)
    if nothing is None:
        return []
    start = f"An answer that sees no input at all gets {with_interval(nothing)}"
    if _overlap(whole, nothing):
        return [f"{start}: the intervals overlap, so within the noise the model may be no better than that."]
    if _gain(whole, nothing, up) < 0:
        return [f"{start}: the model is worse than that."]
    return [f"{start}; the model is clearly better."]


def _against_single(part: TargetPart, metric: str, up: bool) -> list[str]:
    each = part.metrics.get("by_inputs", {})
    single = {k: v[metric] for k, v in each.items() if "+" not in k and metric in v}
    names = sorted(single)
    everything = next((v.get(metric) for k, v in each.items() if sorted(k.split("+")) == names), None)
    if len(names) < 2 or everything is None:
        return []
    best = max(names, key=lambda name: single[name]["value"] * (1 if up else -1))
    others = " and ".join(filter(None, [", ".join([n for n in names if n != best][:-1]),
                                        [n for n in names if n != best][-1]]))
    everything = part.metrics["overall"][metric]  # the number above; both are of the rows that they can be computed for
    gain = _gain(everything, single[best], up)
    start = f"The best single input, {best}, reaches {with_interval(single[best])}"
    change = f"{title_of(metric)} {'+' if everything['value'] >= single[best]['value'] else '−'}" \
             f"{number(abs(everything['value'] - single[best]['value']))}"
    if gain == 0:
        return [f"{start}; adding {others} changes nothing."]
    verb = "improves it" if gain > 0 else "makes it worse"
    if _overlap(everything, single[best]):
        return [f"{start}. Adding {others} {verb} ({change}), but the intervals overlap: "
                "on this many rows, that may be within the noise."]
    return [f"{start}. Adding {others} clearly {verb} ({change})."]


def _gain(a: Metric, b: Metric, up: bool) -> float:
    return (a["value"] - b["value"]) * (1 if up else -1)


def _overlap(a: Metric, b: Metric) -> bool:
    return a["low"] <= b["high"] and b["low"] <= a["high"]


def summary(part: TargetPart) -> dict[str, Any]:
    """The large numbers at the top of a target: the model, no input, the best single input."""
    metric = chosen(part)
    if metric is None:
        return {}
    baselines = part.metrics.get("baselines", {})
    tiles = [("the model", part.metrics["overall"][metric])]
    for key, found in sorted(baselines.items()):  # the best single input comes first
        if metric in found:
            label = name_of(key) if key == WITHOUT else f"only {key.removeprefix(SINGLE)}"
            tiles.append((label, found[metric]))
    return {"metric": title_of(metric), "up": greater(part, metric),
            "tiles": [(label, number(m["value"]), interval(m)) for label, m in tiles]}
