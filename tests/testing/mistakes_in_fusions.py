"""Fusions with one mistake each."""

from typing import Any

import numpy as np
import torch
from good_fusion import Good, GoodFitted, GoodTokens, GoodTowers
from torch import Tensor, nn

from mmtool.api import Fusion, Tokens


class Unstated(Good):
    api = 0


class ReturnsAnything(Good):
    returns = "vector"  # type: ignore[assignment]


class CombinesAnything(GoodTowers):
    combines = "logits"  # type: ignore[assignment]


class NoFusion(nn.Module):
    api = 1


class PositionalOption(Good):
    def __init__(self, dims: dict[str, int], dim: int = 6) -> None:
        super().__init__(dims, dim=dim)


class WithoutDims(Good):
    def __init__(self, *, dim: int = 6) -> None:
        super().__init__({"a": 1}, dim=dim)


class RequiredOption(Good):
    def __init__(self, dims: dict[str, int], *, dim: int) -> None:
        super().__init__(dims, dim=dim)


class NamesModules(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.more = nn.ModuleDict({name: nn.Identity() for name in dims})


class ForgetsDim(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        del self.dim


class OpensAFile(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        with open("/etc/hostname", "rb"):
            pass


class OwnRandomness(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.register_buffer("noise", torch.from_numpy(np.random.default_rng().random(self.dim, np.float32)))


class HoldsALambda(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.act = lambda x: x


class NoTokens(Good):
    def forward(self, inputs: dict[str, Tokens]) -> Any:
        return super().forward(inputs).values


class WrongDim(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.dim = 7


class Doubled(Good):
    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        out = super().forward(inputs)
        return Tokens(out.values.double(), out.mask)


class AlwaysThere(Good):
    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        return Tokens.pooled(super().forward(inputs).values[:, 0])


class FloatMask(Good):
    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        out = super().forward(inputs)
        return Tokens(out.values, out.mask.float())


class MaskedBetween(GoodTokens):
    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        out = super().forward(inputs)
        return Tokens(out.values.flip(1), out.mask.flip(1))


class LosesATower(GoodTowers):
    def forward(self, inputs: dict[str, Tokens]) -> dict[str, Tokens]:
        out = super().forward(inputs)
        out.pop(sorted(out)[0])
        return out


class TowersAsTokens(GoodTowers):
    def forward(self, inputs: dict[str, Tokens]) -> Any:
        return next(iter(super().forward(inputs).values()))


class TowersAlwaysThere(GoodTowers):
    def forward(self, inputs: dict[str, Tokens]) -> dict[str, Tokens]:
        return {name: Tokens.pooled(t.values[:, 0]) for name, t in super().forward(inputs).items()}


class Noisy(Good):
    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        out = super().forward(inputs)
        return Tokens(nn.functional.dropout(out.values), out.mask)


class WritesItsInput(Good):
    def pool(self, tokens: Tokens) -> Tensor:
        with torch.no_grad():
            tokens.values.mul_(2)
        return tokens.mean()


class LaysOutAsGiven(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.more = nn.ParameterList(nn.Parameter(torch.randn(d)) for d in dims.values())

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        out = super().forward(inputs)
        return Tokens(out.values * sum(p.sum() for p in self.more), out.mask)


class FollowsTheInputs(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.mix = nn.Linear(sum(dims.values()), self.dim)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        out = super().forward(inputs)
        return Tokens(out.values + self.mix(torch.cat([t.mean() for t in inputs.values()], 1)).unsqueeze(1), out.mask)


class DividesByNone(Good):
    def weights(self, x: Tensor, present: Tensor) -> Tensor:
        scores = self.score(x).squeeze(-1).exp() * present
        return scores / scores.sum(1, keepdim=True)


class LooksAtTheBatch(Good):
    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        out = super().forward(inputs)
        return Tokens(out.values - out.values.mean(0), out.mask)


class PoolsPadding(Good):
    def pool(self, tokens: Tokens) -> Tensor:
        mean = tokens.values.sum(1) / tokens.lengths.clamp(min=1).unsqueeze(1)
        return torch.where(tokens.present.unsqueeze(1), mean, 0)


class LimitedPositions(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.position = nn.Parameter(torch.rand(4, 1))

    def pool(self, tokens: Tokens) -> Tensor:
        return Tokens(tokens.values * self.position[: tokens.values.shape[1]], tokens.mask).mean()


class TakesAnything(Good):
    takes = "everything"  # type: ignore[assignment]


class TakesMoreThanItSays(Good):
    def pool(self, tokens: Tokens) -> Tensor:
        return tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), -1e9).amax(1).clamp(min=-10)


class TakesLessThanItSays(Good):
    takes = "tokens"


class HearsTheMissing(Good):
    def pool(self, tokens: Tokens) -> Tensor:
        return torch.where(tokens.present.unsqueeze(1), tokens.mean(), tokens.values[:, 0])

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        x, present = self.project(inputs)
        return Tokens.pooled((self.weights(x, present).unsqueeze(-1) * x).sum(1) + x.sum(1), present.any(1))


class WithoutCombine(GoodTowers):
    def combine(self, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        return Fusion.combine(self, scores, present)


class CombinesTheMissing(GoodTowers):
    def combine(self, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        there = [scores[name].masked_fill(~present[name].unsqueeze(1), 0) for name in self.dims]
        return torch.stack(there, 1).mean(1) + 0 * self.exponent.sum()


class HearsMissingScores(GoodTowers):
    def combine(self, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        return super().combine(scores, present) + 0 * sum(s.sum(1, keepdim=True) for s in scores.values())


class CombinesToOne(GoodTowers):
    def combine(self, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        return super().combine(scores, present).mean(1)


class CombinesToNothing(GoodTowers):
    def combine(self, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        none = ~torch.stack([present[name] for name in self.dims]).any(0)
        return super().combine(scores, present).masked_fill(none.unsqueeze(1), float("nan"))


class CombinesInOrder(GoodTowers):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.exponent = nn.Parameter(torch.arange(len(dims)).float())

    def combine(self, scores: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        return super().combine(dict(zip(self.dims, scores.values(), strict=True)),
                               dict(zip(self.dims, present.values(), strict=True)))


class LeavesAParameterOut(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.more = nn.Linear(2, 2)


class CutOff(Good):
    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        with torch.no_grad():
            return super().forward(inputs)


class SquareRootOfNothing(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.gain = nn.Parameter(torch.ones(1))

    def pool(self, tokens: Tokens) -> Tensor:
        x = tokens.mean() * self.gain
        unit = x / x.square().sum(1, keepdim=True).sqrt()
        return torch.where(tokens.present.unsqueeze(1), unit, 0)


class ForFloat32Alone(Good):
    def weights(self, x: Tensor, present: Tensor) -> Tensor:
        scores = self.score(x).squeeze(-1)
        return scores.masked_fill(~present, torch.finfo(torch.float32).min).softmax(1) * present


class KeepsWeightsAside(Good):
    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__(dims)
        self.aside = torch.randn(self.dim)

    def forward(self, inputs: dict[str, Tokens]) -> Tokens:
        out = super().forward(inputs)
        return Tokens(out.values * self.aside, out.mask)


class Prints(Good):
    def pool(self, tokens: Tokens) -> Tensor:
        print("pooling")
        return tokens.mean()


class LearnsByChance(GoodFitted):
    def learn(self, number: int, x: Tensor) -> None:
        super().learn(number, x[torch.randperm(len(x))[:20]])


class GrowsInFit(GoodFitted):
    def learn(self, number: int, x: Tensor) -> None:
        super().learn(number, x)
        self.register_buffer(f"rows{number}", torch.tensor(len(x)))


class WritesWhatItLearnsFrom(GoodFitted):
    def fit(self, inputs: dict[str, Tokens]) -> None:
        super().fit(inputs)
        inputs["title"].values.zero_()


class LearnsInOrder(GoodFitted):
    def learn(self, number: int, x: Tensor) -> None:
        super().learn(number, x[: len(x) // 2 + 1])


class LearnsPadding(GoodFitted):
    def fit(self, inputs: dict[str, Tokens]) -> None:
        super().fit(inputs)
        for number, name in enumerate(self.dims):
            self.get_buffer(f"mean{number}").copy_(inputs[name].values.mean((0, 1)))


class DividesByNoVariance(GoodFitted):
    def learn(self, number: int, x: Tensor) -> None:
        super().learn(number, x)
        self.get_buffer(f"scale{number}").copy_(x.var(0, correction=0).sqrt())
        self.get_buffer(f"mean{number}").copy_(x.mean(0))


MISTAKES: list[tuple[type[Any], str, str]] = [
    (Unstated, "states-what-it-is", "`api = 1`"),
    (ReturnsAnything, "states-what-it-is", 'returns is "pooled"'),
    (TakesAnything, "states-what-it-is", 'takes is "pooled"'),
    (TakesMoreThanItSays, "takes-what-it-states", 'state `takes = "tokens"`'),
    (TakesLessThanItSays, "takes-what-it-states", 'state `takes = "pooled"`'),
    (CombinesAnything, "states-what-it-is", 'combines is "scores"'),
    (NoFusion, "states-what-it-is", "a subclass of mmtool.api.Fusion"),
    (PositionalOption, "options-are-explicit", "def __init__(self, dims, *, dim: ...)"),
    (WithoutDims, "options-are-explicit", "must take dims first"),
    (RequiredOption, "options-are-explicit", "state `example`"),
    (NamesModules, "builds-for-any-inputs", "an input's name, such as 'photo.left', cannot name a module"),
    (ForgetsDim, "builds-for-any-inputs", "set self.dim"),
    (OpensAFile, "builds-without-files", "from dims and options alone"),
    (OwnRandomness, "same-seed-gives-same-weights", "torch's own generator"),
    (HoldsALambda, "can-be-pickled", "keep no lambda"),
    (NoTokens, "gives-tokens", "must return Tokens(values, mask), it returned Tensor"),
    (WrongDim, "gives-tokens", "set self.dim to D"),
    (Doubled, "gives-tokens", "must be float32"),
    (AlwaysThere, "gives-tokens", "a row must be missing (its mask row) where any input is not there"),
    (FloatMask, "gives-tokens", "must be torch.bool"),
    (MaskedBetween, "gives-tokens", "on a prefix"),
    (LosesATower, "gives-tokens", "a tower for each input"),
    (TowersAsTokens, "gives-tokens", "as returns = \"towers\" says"),
    (TowersAlwaysThere, "gives-tokens", "where its input 'title' is not there"),
    (Noisy, "repeats-its-bits", "leave out dropout"),
    (WritesItsInput, "repeats-its-bits", "work on a copy"),
    (LaysOutAsGiven, "order-changes-nothing", "the weights differ"),
    (FollowsTheInputs, "order-changes-nothing", "in the order of self.dims"),
    (DividesByNone, "stays-finite-where-missing", "a row with 0 of 1 inputs"),
    (LooksAtTheBatch, "batching-changes-nothing", "take no statistic over the batch"),
    (PoolsPadding, "ignores-masked-values", "pool with Tokens.mean()"),
    (LimitedPositions, "ignores-more-padding", "mistakes_in_fusions.py, line "),
    (HearsTheMissing, "ignores-what-a-missing-input-holds", "a missing input speaks"),
    (WithoutCombine, "combines-scores", "NotImplementedError"),
    (CombinesTheMissing, "combines-scores", "share weights out among the towers that are there"),
    (HearsMissingScores, "combines-scores", "a missing tower speaks"),
    (CombinesToOne, "combines-scores", "must return scores [B, K]"),
    (CombinesToNothing, "combines-scores", "clamp their count"),
    (CombinesInOrder, "combines-scores", "in another order"),
    (LeavesAParameterOut, "gradients-reach-every-parameter", "no gradient reaches 'more.weight'"),
    (CutOff, "gradients-reach-every-parameter", "leave out detach and no_grad"),
    (SquareRootOfNothing, "gradients-stay-finite-where-missing", "torch.where after it is too late"),
    (ForFloat32Alone, "stays-finite-in-bfloat16", "without overflow"),
    (KeepsWeightsAside, "survives-save-and-load", "parameter or buffer"),
    (LearnsByChance, "fits-the-same-twice", "seed what is random"),
    (GrowsInFit, "fits-the-same-twice", "register it in __init__"),
    (WritesWhatItLearnsFrom, "fits-the-same-twice", "work on a copy"),
    (LearnsInOrder, "fits-rows-in-any-order", "in another order"),
    (LearnsPadding, "fits-what-is-there", "NaN under a False mask"),
    (DividesByNoVariance, "fits-what-is-there", "fitted on a single row"),
    (Prints, "prints-nothing", "'pooling"),
]
"""The class, the check that it must fail, and part of what the check must say."""
