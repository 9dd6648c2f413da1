"""Tasks with one mistake each."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from good_task import Good
from torch import Tensor, nn

from mmtool.api import CellError

Prediction = dict[str, Any]


class Unstated(Good):
    api = 0


class ForgetsItsThreshold(Good):
    def region(self, outputs: Tensor, thresholds: Tensor) -> list[Prediction]:
        return super().region(outputs, torch.ones_like(thresholds))


class RegionsOfNothing(Good):
    def region(self, outputs: Tensor, thresholds: Tensor) -> list[Prediction]:
        return [{"set": []} for _ in outputs]


class ScoresTheBatch(Good):
    def nonconformity(self, outputs: Tensor, targets: Sequence[str]) -> Tensor:
        return super().nonconformity(outputs, targets) / len(targets)


class RegionsAsSets(Good):
    def region(self, outputs: Tensor, thresholds: Tensor) -> list[Prediction]:
        return [{"set": set(r["set"])} for r in super().region(outputs, thresholds)]


class NeedsAnything(Good):
    needs = "vector"  # type: ignore[assignment]


class WithoutMainMetric(Good):
    main_metric = ""


class LinearPerhaps(Good):
    linear = "yes"  # type: ignore[assignment]


class OneKindOfTarget(Good):
    sample_targets = ("ape", "ape")


class NotATask(nn.Module):
    api = 1


class PositionalOption(Good):
    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__(smoothing=smoothing)


class OpensAFile(Good):
    def __init__(self) -> None:
        super().__init__()
        with open("/etc/hostname", "rb"):
            pass


class ChecksWhatItLearned(Good):
    def check(self, target: str) -> None:
        if self.counts.sum() == 0:
            raise CellError("no")


class RefusesItsSamples(Good):
    sample_targets = ("1", "2", "ape", "bear")


class StratumOfNumbers(Good):
    def stratum(self, target: str) -> Any:
        return ord(target[0])


class KeepsTheOrder(Good):
    def order(self, counts: Counter[str]) -> list[str]:
        return list(counts)


class FitsAtRandom(Good):
    def assets(self) -> dict[str, Tensor]:
        return {**super().assets(), "salt": torch.tensor([random.random()])}


class SortsInPlace(Good):
    def fit(self, targets: Any) -> None:
        targets.sort()
        super().fit(targets)


class AssetsAsLists(Good):
    def assets(self) -> Any:
        return {"letters": list(self.labels)}


class EncodesScalars(Good):
    def encode(self, target: str) -> Tensor:
        return super().encode(target)[0]


class EncodesAtRandom(Good):
    def encode(self, target: str) -> Tensor:
        return super().encode(target) + torch.rand(1)


class EncodesTwoTypes(Good):
    def encode(self, target: str) -> Tensor:
        y = super().encode(target)
        return y.float() if target[0] == "a" else y


class FailsOnNews(Good):
    def encode(self, target: str) -> Tensor:
        self.check(target)
        return torch.tensor([{letter: i for i, letter in enumerate(self.labels)}[target[0]]])


class ForgetsItsCounts(Good):
    def set_assets(self, assets: dict[str, Tensor]) -> None:
        super().set_assets({**assets, "counts": assets["counts"].flip(0)})


class ForgetsItsLetters(Good):
    def set_assets(self, assets: dict[str, Tensor]) -> None:
        super().set_assets({**assets, "letters": assets["letters"].flip(0)})


class OneHeadForAll(Good):
    def build(self, dims: dict[str, int]) -> None:
        super().build({"fused": 8})


class HeadsAsGiven(Good):
    def build(self, dims: dict[str, int]) -> None:
        self.heads = nn.ModuleList(nn.Linear(d, len(self.labels)) for d in dims.values())


class MeanLoss(Good):
    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        return super().loss(outputs, y, lengths).mean()


class BatchWeights(Good):
    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        return super().loss(outputs, y, lengths) / torch.bincount(y[:, 0])[y[:, 0]]


class CoarseLoss(Good):
    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        return super().loss(outputs.float(), y, lengths)


class InfiniteLoss(Good):
    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        return -(outputs.softmax(-1).gather(1, y) > 0.9).to(outputs).log()[:, 0]


class LeavesAParameterOut(Good):
    def build(self, dims: dict[str, int]) -> None:
        super().build(dims)
        self.more = nn.Linear(2, 2)


class BendsItsLoss(Good):
    def loss(self, outputs: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        return super().loss(outputs, y, lengths).log1p()


class DeepHeads(Good):
    def build(self, dims: dict[str, int]) -> None:
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(dims[name], len(self.labels)), nn.Tanh()) for name in sorted(dims))


class ScalesItsOutputs(Good):
    def outputs(self, x: dict[str, Any]) -> dict[str, Tensor]:
        return {name: 2 * out for name, out in super().outputs(x).items()}


class DecodesTensors(Good):
    def prediction(self, p: Any) -> Prediction:
        return {**super().prediction(p), "probability": torch.tensor(max(p))}


class DecodesTuples(Good):
    def prediction(self, p: Any) -> Prediction:
        return {**super().prediction(p), "two": (1, 2)}


class DecodesLabels(Good):
    def decode(self, outputs: Tensor) -> Any:
        return [p["prediction"] for p in super().decode(outputs)]


class DecodesTheBatch(Good):
    def decode(self, outputs: Tensor) -> list[Prediction]:
        return super().decode(outputs - outputs.mean(0))


class DecodesOneRow(Good):
    def decode(self, outputs: Tensor) -> list[Prediction]:
        return super().decode(outputs)[:1]


class Hardens(Good):
    def decode(self, outputs: Tensor) -> list[Prediction]:
        return super().decode(100 * nn.functional.one_hot(outputs.argmax(-1), outputs.shape[1]))


class SumsToMore(Good):
    def decode(self, outputs: Tensor) -> list[Prediction]:
        return [self.prediction(p) for p in outputs.double().sigmoid().tolist()]

    def from_scores(self, scores: Tensor) -> Tensor:
        return scores

    def to_scores(self, outputs: Tensor) -> Tensor:
        return outputs


class WithoutProbabilities(Good):
    def prediction(self, p: list[float]) -> Prediction:
        return {"prediction": super().prediction(p)["prediction"]}


class KeepsScores(Good):
    def from_scores(self, scores: Tensor) -> Tensor:
        return scores


class BareBaseline(Good):
    def baseline(self) -> Prediction:
        return {"prediction": super().baseline()["prediction"]}


class MeasuresOneNumber(Good):
    def metrics(self, predictions: Sequence[Prediction], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        return {"accuracy": float(super().metrics(predictions, targets, counts)["accuracy"][0])}


class MeasuresElse(Good):
    main_metric = "f1"


class CountsNothing(Good):
    def metrics(self, predictions: Sequence[Prediction], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        return super().metrics(predictions, targets, np.ones_like(counts))


class AddsUp(Good):
    def metrics(self, predictions: Sequence[Prediction], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        return {"accuracy": super().metrics(predictions, targets, counts)["accuracy"] * counts.sum(1)}


class NeedsProbabilities(Good):
    def metrics(self, predictions: Sequence[Prediction], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        assert all("probabilities" in p for p in predictions)
        return super().metrics(predictions, targets, counts)


class ProbabilisticAtHeart(Good):
    main_metric = "sureness"

    def metrics(self, predictions: Sequence[Prediction], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        if not all("probabilities" in p for p in predictions):
            return super().metrics(predictions, targets, counts)
        p = np.array([p["probabilities"].get(t[0], 0) for p, t in zip(predictions, targets, strict=True)])
        return {"sureness": counts @ p / counts.sum(1)}


class MeasuresKnownLetters(Good):
    def metrics(self, predictions: Sequence[Prediction], targets: Sequence[str], counts: Any) -> dict[str, Any]:
        for target in targets:
            self.encode(target)
        return super().metrics(predictions, targets, counts)


class LessIsBetter(Good):
    greater_is_better = False


class DecodesBackwards(Good):
    def decode(self, outputs: Tensor) -> list[Prediction]:
        return super().decode(-outputs)


class KeepsWeightsAside(Good):
    linear = False

    def build(self, dims: dict[str, int]) -> None:
        super().build(dims)
        self.aside = torch.rand(len(self.labels))

    def outputs(self, x: dict[str, Any]) -> dict[str, Tensor]:
        return {name: out * self.aside for name, out in super().outputs(x).items()}


class Prints(Good):
    def encode(self, target: str) -> Tensor:
        print("encoding")
        return super().encode(target)


MISTAKES: list[tuple[type[Any], str, str]] = [
    (Unstated, "states-what-it-is", "`api = 1`"),
    (NeedsAnything, "states-what-it-is", 'needs is "pooled"'),
    (WithoutMainMetric, "states-what-it-is", 'main_metric = "accuracy"'),
    (LinearPerhaps, "states-what-it-is", "linear is True or False"),
    (OneKindOfTarget, "states-what-it-is", "of at least two kinds"),
    (NotATask, "states-what-it-is", "a subclass of mmtool.api.Task"),
    (PositionalOption, "options-are-explicit", "def __init__(self, *, smoothing: ...)"),
    (OpensAFile, "builds-without-files", "learns in `fit`"),
    (ChecksWhatItLearned, "checks-targets-before-fit", "has no attribute 'counts'"),
    (RefusesItsSamples, "checks-targets-before-fit", "`sample_targets`"),
    (StratumOfNumbers, "checks-targets-before-fit", "stratum must return a str"),
    (KeepsTheOrder, "fits-in-any-order", "in another order, asset 'counts' differs"),
    (FitsAtRandom, "fits-in-any-order", "asset 'salt' differs"),
    (SortsInPlace, "fits-in-any-order", "work on a copy"),
    (AssetsAsLists, "fits-in-any-order", "a dict of tensors"),
    (EncodesScalars, "encodes-targets", "must return a tensor [U]"),
    (EncodesAtRandom, "encodes-targets", "leave out randomness"),
    (EncodesTwoTypes, "encodes-targets", "one type for every target"),
    (FailsOnNews, "refuses-with-cell-error", "encode raised KeyError"),
    (ForgetsItsCounts, "keeps-what-it-learned", "the baseline is another"),
    (ForgetsItsLetters, "keeps-what-it-learned", "is encoded otherwise"),
    (OneHeadForAll, "builds-heads", "one head for each"),
    (HeadsAsGiven, "builds-heads", "RuntimeError"),
    (MeanLoss, "gives-a-loss-a-row", 'reduction="none"'),
    (BatchWeights, "gives-a-loss-a-row", "take no statistic over the batch"),
    (CoarseLoss, "gives-a-loss-a-row", "must be float64"),
    (InfiniteLoss, "gives-a-loss-a-row", "NaN or infinity"),
    (LeavesAParameterOut, "gradients-reach-every-head", "no gradient reaches 'more.weight'"),
    (BendsItsLoss, "is-linear-as-stated", "not convex"),
    (DeepHeads, "is-linear-as-stated", "a head is Sequential"),
    (ScalesItsOutputs, "is-linear-as-stated", "leave the default"),
    (DecodesTensors, "decodes-rows", "what JSON cannot hold"),
    (DecodesTuples, "decodes-rows", "tuples"),
    (DecodesLabels, "decodes-rows", "with the key 'prediction'"),
    (DecodesTheBatch, "decodes-rows", "alone and in a batch"),
    (DecodesOneRow, "decodes-rows", "for each of 9 rows"),
    (Hardens, "is-calibrated-as-stated", "let the outputs be logits"),
    (SumsToMore, "is-calibrated-as-stated", "not 1"),
    (WithoutProbabilities, "is-calibrated-as-stated", "no `probabilities`"),
    (KeepsScores, "scores-come-back", "let from_scores be the inverse"),
    (BareBaseline, "has-a-baseline", "the keys of decode"),
    (ForgetsItsThreshold, "regions-hold-what-fits", "with a threshold below that"),
    (RegionsOfNothing, "regions-hold-what-fits", "must hold everything"),
    (ScoresTheBatch, "regions-hold-what-fits", "take no statistic over the batch"),
    (RegionsAsSets, "regions-hold-what-fits", "it gave"),
    (MeasuresOneNumber, "measures", "must be a NumPy array [R]"),
    (MeasuresElse, "measures", "the main metric 'f1' is none of ['accuracy']"),
    (CountsNothing, "counts-are-repeated-rows", "weigh every sum"),
    (AddsUp, "counts-are-repeated-rows", "divide by the sum of the counts"),
    (NeedsProbabilities, "measures-what-other-tools-predict", "AssertionError"),
    (ProbabilisticAtHeart, "measures-what-other-tools-predict", "the key `prediction` alone"),
    (MeasuresKnownLetters, "measures-any-target", "metrics raised CellError"),
    (LessIsBetter, "less-loss-is-better", "greater_is_better is wrong"),
    (DecodesBackwards, "less-loss-is-better", "do not mean the same"),
    (KeepsWeightsAside, "survives-save-and-load", "parameter or buffer"),
    (Prints, "prints-nothing", "'encoding"),
]
"""The class, the check that it must fail, and part of what the check must say."""
