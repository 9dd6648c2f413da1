"""What each input is worth, in words and tables. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmtool.page import words
from mmtool.page.tables import Table

Worth = Mapping[str, Any]
HEADS = ("input", "worth", "alone", "lost without it", "time a row", "weights")
ABOUT = ("", "its share of the gain over no input, averaged over all orders in which inputs may come (Shapley value)",
         "gain of this input alone over no input", "what the model with all inputs loses when this one is hidden",
         "to extract its features, one row at a time on one thread, measured for this report", "of its encoder")
MOST_PAIRS, MOST_SUBSETS = 4, 32
MANY_PAIRS = 10


def signed(value: float, size: float | None = None) -> str:
    """A gain or loss with its sign; nothing has none."""
    text = words.number(value, size)
    return text if text.startswith("−") or not text.strip("0.") else "+" + text


def signed_cell(metric: words.Metric) -> tuple[str, str]:
    """A gain and its interval, on one scale."""
    return signed(metric["value"], _size(metric)), signed_interval(metric)


def signed_interval(metric: words.Metric) -> str:
    """`−0.010 to +0.053`."""
    return f"{signed(metric['low'], _size(metric))} to {signed(metric['high'], _size(metric))}"


def _size(metric: words.Metric) -> float:
    return max(abs(metric[key]) for key in ("low", "value", "high"))


def seconds(value: float | None) -> str:
    """A time in the unit that suits it."""
    if value is None:
        return "not measured"
    if value >= 1:
        return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"
    return f"{1000 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} µs"


def size(count: int | None) -> str:
    """Bytes in the unit that suits them."""
    if count is None:
        return "not known"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def lines(worth: Worth) -> list[list[str]]:
    """The table of a terminal, the most valuable input first."""
    return [[name, *("{} [{}]".format(*signed_cell(m)) for m in (e["shapley"], e["alone"], e["left_out"])),
             seconds(_cost(e).get("seconds_per_row")), size(_cost(e).get("encoder_bytes"))] for name, e in _ranked(worth)]


def table(worth: Worth) -> Table:
    """The table of a page: worth with its interval and what it says, alone, without it, time and bytes."""
    rows = []
    for name, entry in _ranked(worth):
        cost = _cost(entry)
        cells = [signed_cell(m) for m in (entry["shapley"], entry["alone"], entry["left_out"])]
        feature = cost.get("feature_bytes_per_row")
        rows.append([(name, entry["verdict"]), *cells, (seconds(cost.get("seconds_per_row")), _cells_timed(cost)),
                     (size(cost.get("encoder_bytes")), "" if feature is None else f"features {size(feature)} a row")])
    whys = [f"{name} was not timed: {why}." for name, entry in _ranked(worth) if (why := _cost(entry).get("why"))]
    note = " ".join([f"Gains are in {words.title_of(worth['metric'])}, with 95 % intervals over the same "
                     f"{worth['resamples']:,} resamples of the {worth['rows']:,} rows.", *whys])
    return Table(list(zip(HEADS, ABOUT, strict=True)), rows, note)


def pairs(worth: Worth) -> Table | None:
    """Every pair of inputs: together, each alone added up, the difference, and the word for it."""
    found = sorted(worth["pairs"], key=lambda p: (-abs(p["interaction"]["value"]), p["inputs"]))
    if not found:
        return None
    rows = [[(" + ".join(p["inputs"]), p["word"]), *map(signed_cell, (p["together"], p["apart"], p["interaction"]))]
            for p in found]
    note = "A metric with a ceiling makes two inputs look redundant where each alone already comes near it."
    if len(found) >= MANY_PAIRS:
        note += f" Of {len(found)} intervals, about one in twenty misses zero by chance alone."
    return Table([("pair", ""), ("together", "gain of both over no input"), ("apart", "the gains of each alone, added up"),
                  ("difference", "less than zero: redundant; more: synergistic")], rows, note)


def subsets(worth: Worth) -> Table | None:
    """The metric of every subset of inputs, on the same rows; none where they are too many to read."""
    found = worth["subsets"]
    if len(found) > MOST_SUBSETS:
        return None
    rows = [[(" + ".join(e["inputs"]) or "no input", ""), (words.number(e["value"]), words.interval(e))]
            for e in sorted(found, key=lambda e: -len(e["inputs"]))]
    return Table([("inputs", ""), (words.title_of(worth["metric"]), "")], rows,
                 "All on the same rows; a row that is left with no input gets the answer of one who sees none.")


def sentences(worth: Worth) -> list[str]:
    """What matters, in words: the gain and who makes it, who makes none, pairs, costs, and what to beware of."""
    return [*_gain(worth), *_unclear(worth), *_of_pairs(worth), *_of_costs(worth), *_beware(worth)]


def _gain(worth: Worth) -> list[str]:
    title, up = words.title_of(worth["metric"]), worth["greater_is_better"]
    whole, none = worth["all"]["value"], worth["none"]["value"]
    gain = (whole - none) * (1 if up else -1)
    out = [f"With all inputs {title} is {words.number(whole)}, with none {words.number(none)}: a gain of {signed(gain)}"
           f"{'' if up else ' (less is better, so what falls is gained)'}, which the worths of the inputs add up to."]
    ranked = _ranked(worth)
    if len(ranked) > 1 and all(e["shapley"]["value"] >= 0 for _, e in ranked) and ranked[0][1]["shapley"]["low"] > 0:
        name, first = ranked[0][0], ranked[0][1]["shapley"]
        second, next_best = ranked[1][0], ranked[1][1]["shapley"]
        if first["low"] > next_best["high"]:
            out.append(f"{name} is worth most: {signed(first['value'])}, {100 * first['value'] / gain:.0f} % of the gain.")
        else:
            out.append(f"{name} ({signed(first['value'])}) and {second} ({signed(next_best['value'])}) lead; "
                       "their intervals overlap.")
    return out


def _unclear(worth: Worth) -> list[str]:
    named = {"none": [n for n, e in _ranked(worth) if e["shapley"]["low"] <= 0 <= e["shapley"]["high"]],
             "harm": [n for n, e in _ranked(worth) if e["shapley"]["high"] < 0]}
    out = []
    if found := named["none"]:
        out.append(f"{_and(found)} {'has' if len(found) == 1 else 'have'} no clear worth on these {worth['rows']:,} rows: "
                   f"{'its interval contains' if len(found) == 1 else 'their intervals contain'} zero.")
    if found := named["harm"]:
        out.append(f"{_and(found)} {'does' if len(found) == 1 else 'do'} harm: on average the model is better without.")
    return out


def _of_pairs(worth: Worth) -> list[str]:
    if not worth["pairs"]:
        return []
    clear = [p for p in worth["pairs"] if p["word"] in ("redundant", "synergistic")]
    clear.sort(key=lambda p: (-abs(p["interaction"]["value"]), p["inputs"]))
    if not clear:
        return ["No two inputs are clearly redundant or synergistic: their gains add up, as far as these rows tell."]
    out = []
    for pair in clear[:MOST_PAIRS]:
        less = pair["word"] == "redundant"
        out.append(f"{_and(pair['inputs'])} are {pair['word']}: together they gain {signed(pair['together']['value'])}, "
                   f"{'less' if less else 'more'} than the {signed(pair['apart']['value'])} of each alone added up "
                   f"(difference {signed(pair['interaction']['value'])} [{signed_interval(pair['interaction'])}]).")
    if (more := len(clear) - MOST_PAIRS) > 0:
        out.append(f"{more} more pair{' is' if more == 1 else 's are'} clearly one or the other.")
    room = _room(worth)
    if room is not None and any(p["word"] == "redundant" and p["apart"]["value"] > room for p in clear):
        out.append(f"No model can gain more than {signed(room)} here, and some of these sums are above that: in part, what "
                   f"looks redundant is the ceiling of {words.title_of(worth['metric'])}.")
    return out


def _room(worth: Worth) -> float | None:
    """The largest gain over no input that the metric allows; None of one that this page does not know."""
    none = float(worth["none"]["value"])
    return None if worth["metric"] not in words.ABOUT else 1 - none if worth["greater_is_better"] else none


def _of_costs(worth: Worth) -> list[str]:
    each = [(n, t, e) for n, e in _ranked(worth) if (t := _cost(e).get("seconds_per_row")) is not None]
    if len(each) < len(worth["inputs"]) or len(each) < 2:
        return []
    each.sort(key=lambda item: -item[1])
    total = sum(t for _, t, _ in each)
    out = [f"One row takes {seconds(total)} to extract on one thread: "
           + ", ".join(f"{name} {seconds(t)}" for name, t, _ in each) + "."]
    spare = [(n, t, e) for n, t, e in each if e["left_out"]["low"] <= 0]
    if spare:
        name, took, entry = spare[0]
        held = _cost(entry).get("encoder_bytes")
        also = f", each by itself: that several can go is not shown. {name} takes longest; without it" if len(spare) > 1 else \
            ". Without it"
        out.append(f"Nothing is clearly lost without {_or([n for n, _, _ in spare])}{also} a row takes {seconds(total - took)}"
                   + (f" and {size(held)} of weights are not needed." if held else "."))
    return out


def _beware(worth: Worth) -> list[str]:
    if not worth.get("inputs_never_hidden"):
        return []
    return ["Training hid no input from this model (--modality-dropout 0): unless rows lacked one, it never learned to do "
            "without, and may do worse on some inputs alone than a model that did learn it."]


def _ranked(worth: Worth) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(worth["inputs"].items(), key=lambda item: (-item[1]["shapley"]["value"], item[0]))


def _cost(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = entry.get("cost") or {}
    return found


def _cells_timed(cost: Mapping[str, Any]) -> str:
    count = cost.get("cells", 0)
    return f"mean of {count} {'cell' if count == 1 else 'cells'}, {cost['device']}" if count else ""


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _or(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
