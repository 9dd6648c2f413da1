"""What `mmtool plugins new` writes for a fusion and for a task. Words between two @ are filled in."""

FUSION_ABOUT = "A fusion of mmtool: what several inputs say becomes one vector."
FUSION_USE = "mmtool train data.csv --target COLUMN -f @NAME@ -o model.safetensors"
FUSION_CARE = "The checks tell what a fusion must bear: missing inputs, padding, any order."

FUSION = '''
"""@NAME@: a fusion of mmtool."""

import torch
from torch import nn

from mmtool.api import CellError, Fusion, MMToolError, Tokens


class @CLASS@(Fusion):
    """Gated mean: every input, brought to one width, counts as much as its own gate says."""

    api = 1  # the version of mmtool's contract that this was written for

    def __init__(self, dims, *, dim: int = 64):  # {input: width}; options are keyword-only and annotated: @NAME@:dim=32
        super().__init__(dims)  # sets self.dims, sorted by name
        self.dim = dim  # D, the width of what comes out
        self.layers = nn.ModuleList(nn.Linear(d, dim) for d in self.dims.values())
        self.gates = nn.ModuleList(nn.Linear(d, 1) for d in self.dims.values())

    def forward(self, inputs):  # {input: tokens [B, T_i, D_i]} -> tokens [B, 1, dim]
        pooled = [inputs[name].mean() for name in self.dims]  # each [B, D_i], zero where the input is missing
        present = torch.stack([inputs[name].present for name in self.dims], 1)  # [B, M]
        x = torch.stack([layer(p) for layer, p in zip(self.layers, pooled)], 1)  # [B, M, dim]
        gates = torch.cat([gate(p) for gate, p in zip(self.gates, pooled)], 1).sigmoid() * present  # [B, M]
        total = gates.sum(1, keepdim=True).clamp(min=1e-6)  # never 0, also where no input is there
        return Tokens.pooled((gates.unsqueeze(-1) * x).sum(1) / total, present.any(1))
'''

TASK_ABOUT = "A task of mmtool: what is predicted, and how that is learned and measured."
TASK_USE = "mmtool train data.csv --target COLUMN=@NAME@ -o model.safetensors"
TASK_CARE = "The checks fit it on `sample_targets`, so let these be of your kind."

TASK = '''
"""@NAME@: a task of mmtool."""

import numpy as np
import torch
from torch import nn

from mmtool.api import CellError, MMToolError, Task


class @CLASS@(Task):
    """A count a row (0, 1, 2, ...): Poisson regression, whose outputs are logarithms of rates."""

    api = 1  # the version of mmtool's contract that this was written for
    linear = True  # each head is one nn.Linear, and the loss is convex: it is then solved for, not descended to
    main_metric = "deviance"
    greater_is_better = False
    sample_targets = ("0", "3", "1", "12", "0", "2", "5", "1", "0", "7")  # what `mmtool plugins check` tries

    def __init__(self, *, highest: float = 1e6):  # options are keyword-only and annotated: @NAME@:highest=100
        super().__init__()
        self.highest = highest

    def check(self, target):  # one target, as the column holds it; CellError leaves the row out, and tells
        try:
            count = int(target)
        except ValueError:
            raise CellError(f"{target[:40]!r} is no count") from None
        if not 0 <= count <= self.highest:
            raise CellError(f"{count} is not in [0, {self.highest:g}]")

    def fit(self, targets):  # the training rows' targets; what is learned here goes through assets
        self.rate = sum(map(int, targets)) / len(targets)
        if self.rate == 0:
            raise MMToolError("every training row has the count 0", "there is nothing to learn; check the target column")

    def assets(self):
        return {"rate": torch.tensor(self.rate, dtype=torch.float64)}

    def set_assets(self, assets):
        self.rate = float(assets["rate"])

    def build(self, dims):  # {"fused": D}, or an entry a tower
        self.heads = nn.ModuleList(nn.Linear(dims[name], 1) for name in sorted(dims))

    def encode(self, target):  # one target -> [U]
        self.check(target)
        return torch.tensor([float(target)])

    def loss(self, outputs, y, lengths):  # outputs [B, 1], y [B, 1] -> a loss for each row, [B]
        return (outputs.exp() - y.to(outputs) * outputs)[:, 0]

    def to_scores(self, outputs):  # what may be averaged over towers: rates, not their logarithms
        return self._rates(outputs)

    def from_scores(self, scores):
        return scores.log()

    def decode(self, outputs):  # outputs [B, 1] -> a prediction for each row
        return [{"prediction": rate} for rate in self._rates(outputs.double())[:, 0].tolist()]

    def _rates(self, outputs):
        return outputs.exp().clamp(1e-6, self.highest)

    def baseline(self):  # the prediction of one who sees no input
        return {"prediction": self.rate}

    def metrics(self, predictions, targets, counts):  # counts [R, N]: how often each row counts -> each metric [R]
        rate = np.array([float(p["prediction"]) for p in predictions]).clip(1e-6)
        y = np.array([int(target) for target in targets], dtype=float)
        deviance = 2 * (y * np.log(y.clip(1e-6) / rate) - (y - rate))  # [N]
        return {"deviance": counts @ deviance / counts.sum(1), "mae": counts @ abs(y - rate) / counts.sum(1)}
'''
