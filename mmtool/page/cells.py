"""Cells of a row, made small enough for the page: thumbnails, five seconds of sound, the start of a text."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtool.cells import Source, load, raw_of
from mmtool.errors import CellError
from mmtool.manifest.rows import Row
from mmtool.media.limits import Limits
from mmtool.page.contents import Shown

if TYPE_CHECKING:
    from torch import Tensor

SIDE_PX, SMALL_PX = 160, 80
SOUND_SECONDS, SOUND_RATE_HZ = 5.0, 16_000
TEXT_CHARS = 300
JPEG_QUALITY = 80


def shower(inputs: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Row], base: Path,
           statuses: Mapping[str, Mapping[str, str]] | None = None) -> Callable[[str], list[Shown]]:
    """A function from a row's id to its cells, for `Page.cells`; what cannot be read becomes a `problem`.

    `inputs` as in the header of a model or of features, `base` the folder of relative paths. `statuses` gives, by id and
    input, what extraction said of the cell: one that is not "ok" is not decoded again, since it may have crashed a reader.
    """
    def show(row_id: str) -> list[Shown]:
        row, known = rows.get(row_id), (statuses or {}).get(row_id, {})
        if row is None:
            return []
        return [_shown(name, inputs[name], row, base, known.get(name, "ok")) for name in sorted(inputs)]
    return show


def _shown(name: str, entry: Mapping[str, Any], row: Row, base: Path, status: str) -> Shown:
    modality, columns = entry["modality"], tuple(entry["columns"])
    empty = Shown(name, modality, "+".join(columns))
    raw = raw_of(row, columns, modality)
    if raw is None:
        return replace(empty, problem="missing")
    if status != "ok":
        return replace(empty, problem=status)
    source = Source(modality, base, _limits(entry))
    try:
        content, _ = load(raw, source)
        return _of_content(empty, content, source)
    except (CellError, OSError, ValueError) as error:
        return replace(empty, problem=str(error))


def _limits(entry: Mapping[str, Any]) -> Limits:
    known = {f.name for f in fields(Limits)}
    return replace(Limits(), **{k: v for k, v in entry.get("limits", {}).items() if k in known})


def _of_content(empty: Shown, content: Any, source: Source) -> Shown:
    if source.modality == "image":
        from mmtool.media.images import decode_image

        return replace(empty, data_uri=thumbnail(decode_image(content, source.limits, shorter_side_px=SIDE_PX)))
    if source.modality == "audio":
        from mmtool.media.audio import decode_audio

        sound = decode_audio(content, SOUND_RATE_HZ, source.limits)  # [S]
        seconds = len(sound) / SOUND_RATE_HZ
        said = f"first {SOUND_SECONDS:g} of {seconds:.1f} s" if seconds > SOUND_SECONDS else f"{seconds:.1f} s"
        return replace(empty, data_uri=clip(sound[:int(SOUND_SECONDS * SOUND_RATE_HZ)]), text=said)
    if isinstance(content, dict):
        return replace(empty, text=_cut(", ".join(f"{k}: {_plain(v)}" for k, v in content.items() if v is not None)))
    if isinstance(content, str):
        return replace(empty, text=_cut(content))
    return replace(empty, problem=f"{len(content)} bytes of {source.modality}, which this page cannot show")


def thumbnail(pixels: Tensor) -> str:
    """Pixels `[3, H, W]`, uint8 -> a data: URI of at most 160 px a side; a tiny picture is enlarged by whole pixels."""
    from PIL import Image

    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    longest = max(picture.size)
    if longest < SMALL_PX:
        times = SIDE_PX // longest
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    else:
        picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if longest < SMALL_PX:
        picture.save(out, "PNG", optimize=True)
        return data_uri("image/png", out.getvalue())
    picture.save(out, "JPEG", quality=JPEG_QUALITY)
    return data_uri("image/jpeg", out.getvalue())


def clip(sound: Tensor) -> str:
    """Samples `[S]` at 16 kHz -> a data: URI: MP3, which every browser plays, or WAV where libsndfile writes no MP3."""
    import soundfile

    kind = "MP3" if "MP3" in soundfile.available_formats() else "WAV"
    out = io.BytesIO()
    soundfile.write(out, sound.numpy(), SOUND_RATE_HZ, format=kind)
    return data_uri("audio/mpeg" if kind == "MP3" else "audio/wav", out.getvalue())


def data_uri(kind: str, data: bytes) -> str:
    """Bytes as `data:KIND;base64,...`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS else text[:TEXT_CHARS - 1] + "…"


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
