"""Where within the cells of a row: parts, their scores, and a picture where the cell is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmtool import cells, console
from mmtool.engine import Engine
from mmtool.errors import CellError
from mmtool.explain import overlay, variants
from mmtool.explain.overlay import Overlays
from mmtool.extraction.sources import Reading
from mmtool.manifest.rows import Row
from mmtool.media.images import decode_image


class Within:
    """Explains cells by the encoders that read them; `readings` are those whose cells have parts."""

    def __init__(self, readings: Sequence[Reading], engines: Mapping[str, Engine], overlays: Overlays) -> None:
        self.engines, self.overlays = engines, overlays
        self.readings = {r.name: r for r in readings if r.source.modality in variants.MODALITIES}

    def explain(self, name: str, row: Row, titles: Sequence[tuple[str, ...]],
                value: variants.Value) -> Iterator[dict[str, Any]]:
        """What is told of one input of a row for each of C targets; `titles` name their pictures, the row's id first.

        Nothing, with a warning, of a cell that can be read no more.
        """
        reading = self.readings[name]
        raw = cells.raw_of(row, reading.input.columns, reading.source.modality)
        try:
            content = cells.load(raw, reading.source)[0]
            parts = variants.parts_of(content, reading)
            picture = decode_image(content, reading.source.limits) if reading.source.modality == "image" else None
        except CellError as error:
            console.warn(f"{titles[0][0]}: {name} is not explained: {error.status}")
            return
        found = variants.scores(parts, reading, self.engines[name], value).tolist()
        for (row_id, *what), scores in zip(titles, found, strict=True):
            told = parts.describe(scores)
            if picture is not None:
                told = {"overlay": self.overlays.write(row_id, what, overlay.paint(picture, told["grid"])), **told}
            yield told
