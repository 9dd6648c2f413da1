"""Candidates that were compared on the same rows, in words and tables. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmtool.page import words
from mmtool.page.tables import Table
from mmtool.page.worth import seconds, signed_cell

Comparison = Mapping[str, Any]
Candidate = Mapping[str, Any]
NAME_CHARS = 60
TERMINAL_NAME_CHARS = 26
KINDS = {"fusion": "fusion", "input": "one input", "subset": "some inputs", "head": "head", "ensemble": "ensemble",
         "search": "searched settings"}
PARTIAL = ("input", "subset", "ensemble")
"""Kinds that are never chosen: they leave inputs out, or are several models."""


def close(candidate: Candidate) -> bool:
    """Is it within the noise of the best, or the best itself?"""
    gap = candidate.get("gap")
    return gap is None or gap["low"] <= 0 <= gap["high"]


def simplest(candidates: Sequence[Candidate]) -> Candidate:
    """The one with the fewest inputs; of those, with the fewest parameters, where they are known."""
    return min(candidates, key=lambda c: (len(c["inputs"]), c.get("parameters") is None, c.get("parameters") or 0))


def sentences(found: Comparison) -> list[str]:
    """What matters, in words: who leads, how sure that is, which one is simplest, which was chosen, and the skipped."""
    each = found["candidates"]
    if not each:
        return ["Nothing could be compared.", *_skipped(found)]
    best, title = each[0], words.title_of(found["metric"])
    start = f"Of {len(each)} candidates, {_name(best)} has the best {title}" if len(each) > 1 \
        else f"{_name(best)} is the only candidate. {title}"
    out = [f"{start}: {words.with_interval(best)} on {found['rows']:,} rows ({found['how']})."]
    return [*out, *_noise(each), *_chosen(each), *_searched(each), *_against_nothing(found), *_ensemble(found),
            *_skipped(found)]


def _noise(each: Sequence[Candidate]) -> list[str]:
    if len(each) < 2:
        return []
    near = [c for c in each if close(c)]
    others = len(each) - 1
    if len(near) == 1:
        rest = "the other one" if others == 1 else f"each of the other {others}"
        return [f"{_name(each[0])} is clearly better than {rest}: no paired interval of the difference contains zero."]
    least = simplest(near)
    with_ = _plural(len(least["inputs"]), "input")
    if least.get("parameters") is not None:
        with_ += f" and {_plural(least['parameters'], 'parameter')}"
    rest = "the other one is" if others == 1 else f"{len(near) - 1} of the other {others} {'is' if len(near) == 2 else 'are'}"
    told = "the best itself" if least is each[0] else _name(least)
    out = [f"No clear winner: {rest} within the noise of the best. The simplest of these {len(near)} (fewest inputs, then "
           f"fewest parameters) is {told}, with {with_}."]
    if each[0].get("p_best") is not None:
        out.append(f"Had other rows been drawn, {_name(each[0])} would come first again in about "
                   f"{100 * each[0]['p_best']:.0f} % of cases.")
    return out


def _chosen(each: Sequence[Candidate]) -> list[str]:
    out = []
    for candidate in [c for c in each if c.get("chosen") and len(each) > 1][:1]:
        where = "the best" if candidate is each[0] else "within the noise of the best" if close(candidate) \
            else "not the best on these rows"
        alone = [c for c in each[: each.index(candidate)] if c["kind"] not in PARTIAL]
        why = "" if candidate is each[0] else " (of single models that take every input, it leads)" if not alone \
            else "" if close(candidate) else " (of all targets together, its mean rank is the best)"
        out.append(f"Chosen: {_name(candidate)}, {where}{why}.")
    return out


def _searched(each: Sequence[Candidate]) -> list[str]:
    """The settings that a search found, as `train` takes them."""
    out = []
    for candidate in [c for c in each if c["kind"] == "search"]:
        settings = dict(candidate.get("settings") or {})
        told = {**settings, **settings.pop("given", {})}
        told.pop("given", None)
        dense = f" --dense {','.join(map(str, candidate['hidden']))}" if candidate.get("hidden") else ""
        options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in sorted(told.items()))
        out.append(f"Settings of {_name(candidate)}: train -f {candidate['fusion']}{dense}{options}.")
    return out


def _against_nothing(found: Comparison) -> list[str]:
    nothing, up, each = found.get("without_inputs"), found["greater_is_better"], found["candidates"]
    if nothing is None:
        return []
    beaten = [c for c in each if (c["low"] > nothing if up else c["high"] < nothing)]
    start = f"An answer that sees no input gets {words.number(nothing)}"
    if not beaten:
        return [f"{start}: no candidate is clearly better than that."]
    if len(beaten) == len(each):
        return [f"{start}: {'the' if len(each) == 1 else 'every'} candidate is clearly better."]
    left = len(each) - len(beaten)
    return [f"{start}: {left} of {len(each)} candidates {'is' if left == 1 else 'are'} not clearly better than that."]


def _ensemble(found: Comparison) -> list[str]:
    together = found.get("ensemble")
    if not together:
        return []
    members = sorted(together["members"].items(), key=lambda item: (-item[1], item[0]))
    parts = ", ".join(f"{_cut(name)} {100 * weight:.0f} %" for name, weight in members)
    return [f"An ensemble ({parts}) gets {words.with_interval(together)}."]


def _skipped(found: Comparison) -> list[str]:
    count = len(found.get("skipped") or [])
    return [f"{_plural(count, 'candidate')} could not be tried; why is told below."] if count else []


def table(found: Comparison) -> Table:
    """Every candidate, the best first; columns of which nothing is known are left out."""
    optional: list[tuple[str, str, str, Callable[[Any], str]]] = [
        ("loss", "loss", "mean loss; less is better", words.number),
        ("p_best", "chance to be best", "share of resamples of these rows that it wins", lambda p: f"{100 * p:.0f} %"),
        ("parameters", "parameters", "numbers that are learned; frozen encoders are not counted", lambda n: f"{n:,}"),
        ("train_seconds", "training", "all folds together", seconds),
        ("predict_ms_per_row", "a prediction", "of one row, without its encoders", lambda ms: seconds(ms / 1000))]
    used = [item for item in optional if any(c.get(item[0]) is not None for c in found["candidates"])]
    rows = []
    for candidate in found["candidates"]:
        gap = candidate.get("gap")
        rows.append([(_name(candidate), _small(candidate)), (words.number(candidate["value"]), words.interval(candidate)),
                     ("best", "") if gap is None else signed_cell(gap),
                     *(("–" if (v := candidate.get(key)) is None else tell(v), "") for key, _, _, tell in used)])
    heads = [("candidate", ""), (words.title_of(found["metric"]), "with its 95 % interval"),
             ("to the best", "difference from the best on the same resamples; an interval with zero in it is noise")]
    return Table([*heads, *((head, about) for _, head, about, _ in used)], rows)


def terminal(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """The heads and lines of a terminal, about 110 columns wide; the page and comparison.json have the rest."""
    each = found["candidates"]
    optional: list[tuple[str, str, Callable[[Any], str]]] = [
        ("loss", "loss", words.number), ("p_best", "wins", lambda p: f"{100 * p:.0f} %"),
        ("parameters", "parameters", lambda n: f"{n:,}"), ("train_seconds", "training", seconds)]
    used = [item for item in optional if any(c.get(item[0]) is not None for c in each)]
    full = [str(c["name"]) for c in each]
    short, lines = [_middle_cut(name) for name in full], []
    for candidate, name in zip(each, short if len({*short}) == len(full) else full, strict=True):
        gap = candidate.get("gap")
        lines.append([name, words.with_interval(candidate).replace(" to ", ", "),
                      "best" if gap is None else "{} [{}]".format(*signed_cell(gap)).replace(" to ", ", "),
                      *("–" if (v := candidate.get(key)) is None else tell(v) for key, _, tell in used)])
    return ["candidate", words.title_of(found["metric"]), "to the best", *(head for _, head, _ in used)], lines


def legend(found: Comparison) -> list[str]:
    """What the columns of the terminal mean, where there is anything to compare, and why some could not be tried."""
    out = []
    if len(found["candidates"]) > 1:
        known = found["candidates"][0].get("p_best") is not None
        out.append("In brackets: 95 % intervals, of differences from the best on the same resamples"
                   + ("; wins: the share of resamples in which it comes first." if known else "."))
    together: dict[str, list[str]] = {}
    for entry in found.get("skipped") or []:
        together.setdefault(_cut(entry["why"], 300), []).append(_cut(entry["name"]))
    return out + [f"not tried: {', '.join(names)}: {why}" for why, names in together.items()]


def skipped(found: Comparison) -> Table | None:
    """What could not be tried, and why."""
    rows = [[(_cut(e["name"]), _cut(e["why"], 300))] for e in found.get("skipped") or []]
    return Table([("candidate, and why it was not tried", "")], rows) if rows else None


def _small(candidate: Candidate) -> str:
    parts = ["chosen" if candidate.get("chosen") else "", KINDS.get(candidate["kind"], str(candidate["kind"]))]
    if candidate.get("fusion") and candidate["fusion"] != candidate["name"]:
        parts.append(f"by {candidate['fusion']}")
    if inputs := " + ".join(candidate["inputs"]):
        parts.append(_cut(inputs, 120))
    return ", ".join(filter(None, parts))


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _name(candidate: Candidate) -> str:
    return _cut(str(candidate["name"]))


def _middle_cut(text: str) -> str:
    """Both ends stay: names of subsets and heads begin alike."""
    if len(text) <= TERMINAL_NAME_CHARS:
        return text
    half = (TERMINAL_NAME_CHARS - 1) // 2
    return f"{text[:TERMINAL_NAME_CHARS - 1 - half]}…{text[-half:]}"


def _cut(text: str, chars: int = NAME_CHARS) -> str:
    return text if len(text) <= chars else text[:chars - 1] + "…"
