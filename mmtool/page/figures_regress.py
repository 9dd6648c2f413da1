"""Plots of one number a row, or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmtool.page.contents import TargetPart
from mmtool.page.figures import BLUE, GREY, RED, Plot, draw, few_ticks
from mmtool.page.words import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[Any]]
MOST_OUTPUTS, MOST_POINTS, BINS = 4, 1500, 25


def values(part: TargetPart) -> tuple[Array, Array]:
    """Truth and predictions, both `[N, K]`."""
    from mmtool.tasks.regress import numbers

    given = [p["prediction"] for p in part.predictions]
    return (np.array([numbers(cell) for cell in part.truth], dtype=float),
            np.array([g if isinstance(g, list) else [g] for g in given], dtype=float))


def plots(part: TargetPart) -> list[Plot]:
    """Predicted against true, and the residuals."""
    y, predicted = values(part)
    outputs = min(y.shape[1], MOST_OUTPUTS)
    cut = f" The first {outputs} of {y.shape[1]} outputs." if y.shape[1] > outputs else ""
    return [_against(y, predicted, outputs, cut), _residuals(y, predicted, outputs, cut)]


def _grid(outputs: int) -> tuple[int, int]:
    return (outputs + 1) // 2, min(outputs, 2)


def _panels(figure: Figure, outputs: int) -> list[Any]:
    rows, columns = _grid(outputs)
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for empty in panels[outputs:]:
        empty.set_axis_off()
    for k, axes in enumerate(panels[:outputs]):
        few_ticks(axes, "x", 3 if outputs > 1 else 5)
        few_ticks(axes, "y", 4)
        if outputs > 1:
            axes.set_title(f"output {k + 1}", loc="left")
    return panels[:outputs]


def _height(outputs: int) -> float:
    return 3.7 if outputs == 1 else 2.4 * _grid(outputs)[0] + 0.3


def _against(y: Array, predicted: Array, outputs: int, cut: str) -> Plot:
    at = np.unique(np.linspace(0, len(y) - 1, min(len(y), MOST_POINTS)).astype(int))

    def paint(figure: Figure) -> None:
        for k, axes in enumerate(_panels(figure, outputs)):
            axes.plot(y[at, k], predicted[at, k], "o", color=BLUE, markersize=3.5, alpha=0.45, markeredgewidth=0)
            low, high = (float(f([y[at, k], predicted[at, k]])) for f in (np.min, np.max))
            if low < high:
                axes.plot([low, high], [low, high], color=RED, linestyle="--", linewidth=1.2)
        figure.supxlabel("true", fontsize=10)
        figure.supylabel("predicted", fontsize=10)

    few = f" {len(at):,} of {len(y):,} rows, evenly drawn." if len(at) < len(y) else ""
    return Plot("truth", "Predicted against true", "On the dashed line a prediction is right." + few + cut,
                draw(paint, _height(outputs)))


def _residuals(y: Array, predicted: Array, outputs: int, cut: str) -> Plot:
    errors = predicted - y

    def paint(figure: Figure) -> None:
        for k, axes in enumerate(_panels(figure, outputs)):
            row = errors[:, k]
            spread = float(np.ptp(row))
            middle = float(row.mean())
            edges = np.linspace(row.min(), row.max(), BINS + 1) if spread > 1e-9 * max(1.0, abs(middle)) else \
                np.array([middle - 0.5, middle + 0.5])
            axes.hist(row, bins=edges, color=BLUE, edgecolor="white", linewidth=0.5)
            axes.axvline(0, color=GREY, linestyle="--", linewidth=1.2)
        figure.supxlabel("predicted − true", fontsize=10)
        figure.supylabel("rows", fontsize=10)

    bias = f" The mean is {number(float(errors[:, 0].mean()))}." if y.shape[1] == 1 else ""
    return Plot("residuals", "Errors", "A peak away from 0 is a bias." + bias + cut, draw(paint, _height(outputs)))
