"""The same emoji in nine designs: a class for each emoji, a picture for each design."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from PIL import Image
from tqdm import tqdm

from .files import partial_folder, sha256, unpack
from .pictures import ERRORS, opaque

SETS = {
    "twemoji": "1.2.5",
    "noto": "1.2.9",
    "noto-v1": "1.2.5",
    "openmoji": "1.2.29",
    "emojione": "1.2.3",
    "emojione-v1": "1.2.3",
    "fxemoji": "1.2.2",
    "fluent-emoji": "1.2.7",
    "fluent-emoji-flat": "1.2.6",
}
"""Name of a set -> version of its package, @iconify-json/NAME."""

SIZE = 96
MIN_DRAWINGS = 5
DIGEST = "a647d75d1db039eee841e267538c34d65a56910866ac3cf885a839321bc23709"
"""digest() of the dataset that the documentation's tables were measured on."""

# Skin tones differ only in colour, keycaps in a digit, and all sets share their flags.
_LEFT_OUT = re.compile(r"-skin-tone|^keycap-|^flag-")
_RECORD, _LICENCES = "digest.txt", "LICENCES.md"

Icons = Mapping[str, Any]
"""The icons.json of a set's package: icons by name, and their common values."""


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """Make a dataset of pictures: the same emoji in nine designs, with free licences.

    Fetches the sets by npm and draws them, in a few minutes; use the result with
    --dataset folder.

    Attributes:
        out: folder for the class folders; new, empty, or written by this command.
    """

    out: tyro.conf.Positional[Path] = Path("runs/emoji-data")

    def run(self) -> tuple[str, Path]:
        """Fetch and draw the emoji, or check those that were drawn before.

        Each class folder has a PNG file for each set; beside them are LICENCES.md and the
        digest. The folder out appears only when all is written.

        Raises:
            ValueError: out has other files in it, or has changed since it was drawn.
            OSError: npm is missing or cannot fetch a set, or out cannot be written.
            ImportError: resvg-py is missing.
        """
        out = self.out
        if (out / _RECORD).is_file():
            _check(out)
        elif out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise ValueError(
                f"{out} has other things in it; name a folder that is empty or new"
            )
        else:
            _make(out)
        pictures = list(out.glob("*/*.png"))
        same = "the same as the documentation's to the last pixel."
        other = (
            f"with another digest than the documentation's, {DIGEST}: another version of "
            "resvg-py or another processor may draw edges a little differently."
        )
        text = (
            f"{len({path.parent for path in pictures}):,} emoji in {len(SETS)} sets, "
            f"{len(pictures):,} pictures, {same if _recorded(out) == DIGEST else other}"
        )
        return text, out


def classes(sets: Mapping[str, Icons]) -> dict[str, list[str]]:
    """Class -> sets that have it, both by name, for emoji that are in at least five sets.

    A class is a name, which is the same in all sets except for a few older names. Names
    that a set has withdrawn (hidden) or duplicates (aliases) do not count.

    >>> shown = {"icons": {"cat": {}, "cat-light-skin-tone": {}, "old": {"hidden": True}}}
    >>> classes({name: shown for name in "abcde"})
    {'cat': ['a', 'b', 'c', 'd', 'e']}
    """
    found: dict[str, list[str]] = {}
    for name, icons in sorted(sets.items()):
        for icon, drawing in icons["icons"].items():
            if not drawing.get("hidden") and not _LEFT_OUT.search(icon):
                found.setdefault(icon, []).append(name)
    return {
        icon: names for icon, names in sorted(found.items()) if len(names) >= MIN_DRAWINGS
    }


def svg(icons: Icons, name: str) -> str:
    """An icon of a set, as an SVG document of 96 x 96 pixels, centred if not square."""
    # An icon's own values, else its set's, else Iconify's defaults.
    box = {"left": 0, "top": 0, "width": 16, "height": 16, **icons, **icons["icons"][name]}
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIZE}" height="{SIZE}" '
        f'viewBox="{box["left"]} {box["top"]} {box["width"]} {box["height"]}">'
        f"{box['body']}</svg>"
    )


def digest(folder: Path) -> str:
    """SHA-256 of the names and pixels of a dataset, in hexadecimal."""
    paths = sorted(folder.glob("*/*.png"))
    return sha256(
        f"{path.parent.name}/{path.stem}\n".encode()
        + Image.open(path).convert("RGB").tobytes()
        for path in paths
    )


def _recorded(out: Path) -> str:
    return (out / _RECORD).read_text(encoding="utf-8").strip()


def _check(out: Path) -> None:
    try:
        intact = digest(out) == _recorded(out)
    except ERRORS:
        intact = False
    if not intact:
        raise ValueError(
            f"{out} is no longer as it was drawn; remove it, and the same command draws it "
            "again"
        )


def _make(out: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            "the emoji are fetched by npm, which is not there; install it, on Debian by: "
            "apt install npm"
        )
    try:
        import resvg_py
    except ImportError as error:
        raise ImportError(
            f"emoji are drawn by resvg-py: pip install '.[emoji]' ({error})"
        ) from error
    with partial_folder(out) as partial:
        packages = {
            name: _fetch(npm, name, Path(partial, name))
            for name in tqdm(SETS, desc="fetching sets", unit="set")
        }
        sets = {name: _read(package / "icons.json") for name, package in packages.items()}
        drawn = Path(partial, "drawn")
        drawn.mkdir()
        for icon, names in tqdm(classes(sets).items(), desc="drawing emoji", unit="emoji"):
            (drawn / icon).mkdir()
            for name in names:
                # No icon has text, and looking for fonts takes longer than drawing.
                document = svg(sets[name], icon)
                png = resvg_py.svg_to_bytes(svg_string=document, skip_system_fonts=True)
                picture = opaque(Image.open(io.BytesIO(png)))
                picture.save(drawn / icon / f"{name}.png")
        infos = {name: _read(package / "info.json") for name, package in packages.items()}
        (drawn / _LICENCES).write_text(_licences(infos), encoding="utf-8")
        (drawn / _RECORD).write_text(f"{digest(drawn)}\n", encoding="utf-8")
        drawn.rename(out)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _fetch(npm: str, name: str, folder: Path) -> Path:
    """The unpacked package of a set."""
    package = f"@iconify-json/{name}@{SETS[name]}"
    folder.mkdir()
    done = subprocess.run(
        [npm, "pack", "--loglevel=error", package],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        # After the reason npm prints its own stack trace.
        reason = "\n".join(done.stderr.splitlines()[:4])
        raise OSError(f"npm cannot fetch {package}:\n{reason}")
    (archive,) = folder.glob("*.tgz")
    unpack(archive, folder)
    return folder / "package"


def _licences(infos: Mapping[str, Any]) -> str:
    rows = [
        f"| {name}.png | {info['name']} | {info['author']['name']}, "
        f"<{info['author']['url']}> | {info['license']['title']}, "
        f"<{info['license']['url']}> | @iconify-json/{name} {SETS[name]} |\n"
        for name, info in infos.items()
    ]
    return (
        "# Licences\n\nThe pictures are icons of these sets, drawn at "
        f"{SIZE} x {SIZE} pixels on white.\n\n"
        "| picture | set | author | licence | package |\n"
        f"| --- | --- | --- | --- | --- |\n{''.join(rows)}"
    )
