"""The page in a real browser: nothing is cut off on a phone or a desk, every picture loads, no script runs."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import page_made as made
import pytest

from mmtool.page.cells import clip, thumbnail
from mmtool.page.contents import Shown
from mmtool.page.write import write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
LONG = "a_very_long_name_without_any_space_" * 6
PROBE = """<body><iframe id="f" style="width:{width}px;height:900px;border:0" src="report.html"></iframe><pre id="out"></pre>
<script>
const f = document.getElementById("f");
f.onload = async () => {{
  const d = f.contentDocument, w = f.contentWindow;
  d.querySelectorAll("details").forEach(e => e.open = true);
  await Promise.all([...d.images].map(i => i.decode().catch(() => 0)));
  const wide = [...d.querySelectorAll("body *")].filter(
    e => !e.closest(".scroll") && e.getBoundingClientRect().right > w.innerWidth + 1);
  document.getElementById("out").textContent = JSON.stringify({{
    inner: w.innerWidth, scroll: d.documentElement.scrollWidth, title: d.title, ran: w.ran === 1,
    wide: wide.map(e => e.tagName + "." + e.className), images: [...d.images].length,
    broken: [...d.images].filter(i => !i.naturalWidth).length, sounds: d.querySelectorAll("audio").length,
    cards: d.querySelectorAll("article").length}});
}};
</script>"""


def looked_at(folder: Path, width_px: int) -> dict[str, Any]:
    """What the browser says of the page at this width, every fold open."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium or Chrome on this machine to open the page in")
    (folder / "probe.html").write_text(PROBE.format(width=width_px))
    with served(folder) as (port, asked):
        ran = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             f"--host-resolver-rules=MAP * 127.0.0.1:{port}", f"--user-data-dir={folder / 'profile'}",
             f"--window-size={width_px + 40},1000", "--virtual-time-budget=10000", "--dump-dom", "http://report.test/probe.html"],
            capture_output=True, text=True, timeout=120, check=True)
    found = ran.stdout.partition('<pre id="out">')[2].partition("</pre>")[0]
    assert found, ran.stderr[-2000:]
    own = {"report.test/report.html", "report.test/favicon.ico"}
    return {**json.loads(html.unescape(found)), "asked": sorted(set(asked) - own)}


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, list[str]]]:
    """A server of the folder that notes what a page asks of whatever host."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Referer"]:  # the browser's own calls home have none
                asked.append(f"{self.headers['Host']}{self.path}")
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cells(row_id: str) -> list[Shown]:
    import torch

    return [Shown("photo", "image", "photo", data_uri=thumbnail(torch.full((3, 90, 200), 99, dtype=torch.uint8))),
            Shown("clip", "audio", "clip", data_uri=clip(torch.zeros(16000)), text="1.0 s"),
            Shown(LONG, "text", LONG, text=LONG), Shown(LONG, "image", "b", problem=LONG)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every task, with names that are too long for any screen."""
    named = made.classify(labels=[LONG, "<script>window.ran = 1</script>", "x"], rows=60)
    named = replace(named, column=LONG, predictions=[{**p, "id": LONG, "inputs": [LONG]} for p in named.predictions])
    named = replace(named, worth=made.worth([LONG, "image", "<b>bold</b>"]),
                    comparison=made.comparison(40, [LONG, "x", "<i>y</i>"]))
    many = replace(made.classify(30, 300), worth=made.worth([f"input {i}" for i in range(8)]), comparison=made.comparison(12))
    alone = made.compared(made.comparison(2, [LONG]), LONG)
    page = replace(made.page(named, many, alone, made.tag(30, 100), made.regress(4), made.regress(), cells=cells),
                   title=LONG, facts=[(LONG, LONG)] * 5, notes=[LONG])
    out = tmp_path_factory.mktemp("report")
    write(out, page)
    return out


@pytest.mark.parametrize("width_px", [360, 390, 1280])
def test_the_page_fits_and_loads(folder: Path, width_px: int) -> None:
    seen = looked_at(folder, width_px)
    assert seen["inner"] == width_px
    assert seen["scroll"] <= width_px
    assert seen["wide"] == []
    assert (seen["images"] > 40, seen["broken"], seen["sounds"]) == (True, 0, seen["cards"])
    assert (seen["asked"], seen["ran"], seen["title"]) == ([], False, LONG)


def test_the_probe_sees_what_is_too_wide(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<title>x</title><p style='width:999px'>wide<img src='data:image/png;base64,AAAA'>"
                                          "<img src='http://elsewhere.test/gone.png'><script>window.ran = 1</script>")
    seen = looked_at(tmp_path, 390)
    assert (seen["scroll"] > 390, len(seen["wide"]) > 0, seen["broken"], seen["ran"]) == (True, True, 2, True)
    assert seen["asked"] == ["elsewhere.test/gone.png"]
