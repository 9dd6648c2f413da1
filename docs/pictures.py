"""Draws the README's pictures from what the commands really print.

    python docs/pictures.py        (from the root of a checkout, with mmtool and the starter installed)
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = """id,photo,title,price,split
1,cat.jpg,A striped cat looks up,,train
2,coffee.jpg,A cup of espresso on a wooden table,2.80,train
3,broken.jpg,,3.10,test
4,,Two tickets for the opera,64,test
"""
PICTURES = {
    "predict": ["mmtool predict cat.jpg --text 'my new puppy'",
                "mmtool predict cat.jpg voice.ogg --labels 'cat,dog,horse,cup of coffee'",
                "mmtool predict cat.jpg coffee.jpg --labels 'cat,dog,horse,cup of coffee'"],
    "extract": ["mmtool extract goods.csv -o feats -e photo=effnet-lite0 -e title=minilm -e price=table",
                "cat feats/errors.jsonl",
                "mmtool extract goods.csv -o feats -e photo=effnet-lite0 -e title=minilm -e price=table --max-bad 1"],
}


def draw(name: str, commands: list[str], folder: Path) -> None:
    """One SVG with the commands and, below each, its output; a code other than 0 is shown."""
    console = Console(record=True, width=104, file=open(os.devnull, "w"), highlight=False)  # noqa: SIM115, PTH123
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in commands:
        ran = subprocess.run(shlex.split(command), cwd=folder, capture_output=True, text=True, check=False,
                             env={**os.environ, "PATH": path, "MMTOOL_CACHE": str(folder / "cache")})
        console.print(Text("$ ", "green") + Text(command, "bold"))
        if ran.stderr.strip():
            console.print(Text(ran.stderr.rstrip(), "dim"))
        console.print(Text(ran.stdout.rstrip() + (f"\n(exit code {ran.returncode})" if ran.returncode else "") + "\n"))
    console.save_svg(str(ROOT / "docs" / f"{name}.svg"), title=f"mmtool {name}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sample in ("cat.jpg", "coffee.jpg", "voice.ogg"):
            (folder / sample).write_bytes((ROOT / "mmtool/samples" / sample).read_bytes())
        (folder / "broken.jpg").write_bytes((folder / "cat.jpg").read_bytes()[:5000])
        (folder / "goods.csv").write_text(MANIFEST)
        for picture, commands in PICTURES.items():
            draw(picture, commands, folder)


if __name__ == "__main__":
    main()
