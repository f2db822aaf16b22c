"""The same emoji in nine designs: a class for each emoji, a picture for each design."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image
from tqdm import tqdm

from .archives import unpack

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


def emoji(out: Path) -> str:
    """Fetch the sets and draw them, unless that was done; returns the text to print.

    Args:
        out: folder for the class folders, each with a PNG file for each set, and for
            LICENCES.md and the digest. It appears only when all is written.

    Raises:
        ValueError: out has other files in it, or has changed since it was drawn.
        OSError: npm is missing or cannot fetch a set, or out cannot be written.
        ImportError: resvg-py is missing.
    """
    if (out / _RECORD).is_file():
        _check(out)
    elif out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(
            f"{out} has other things in it; name a folder that is empty or new"
        )
    else:
        _make(out)
    pictures = list(out.glob("*/*.png"))
    text = (
        f"{len({path.parent for path in pictures}):,} emoji in {len(SETS)} sets, "
        f"{len(pictures):,} pictures, "
    )
    if (out / _RECORD).read_text(encoding="utf-8").strip() == DIGEST:
        return f"{text}the same as the documentation's to the last pixel."
    return (
        f"{text}with another digest than the documentation's, {DIGEST}: another version of "
        "resvg-py or another processor may draw edges a little differently."
    )


def classes(sets: Mapping[str, Icons]) -> dict[str, list[str]]:
    """Which sets have which emoji, of those in at least five sets.

    A class is a name, which is the same in all sets except for a few older names. Names
    that a set has withdrawn (hidden) or duplicates (aliases) do not count.

    Args:
        sets: name of a set -> its icons.

    Returns:
        Class -> names of sets, both sorted.

    >>> shown = {"icons": {"cat": {}, "cat-light-skin-tone": {}, "old": {"hidden": True}}}
    >>> classes({name: shown for name in "abcde"})
    {'cat': ['a', 'b', 'c', 'd', 'e']}
    """
    names = {
        name: {
            icon
            for icon, drawing in icons["icons"].items()
            if not drawing.get("hidden") and not _LEFT_OUT.search(icon)
        }
        for name, icons in sets.items()
    }
    number = Counter(icon for found in names.values() for icon in found)
    return {
        icon: sorted(name for name, found in names.items() if icon in found)
        for icon, count in sorted(number.items())
        if count >= MIN_DRAWINGS
    }


def svg(icons: Icons, name: str) -> str:
    """An icon as an SVG document of 96 x 96 pixels; one that is not square is centred.

    Args:
        icons: of a set.
        name: of the icon.
    """
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
    """SHA-256 of the names and pixels of a dataset, in hexadecimal.

    Args:
        folder: of class folders of PNG files.
    """
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*/*.png")):
        with Image.open(path) as image:
            sha.update(f"{path.parent.name}/{path.stem}\n".encode())
            sha.update(image.convert("RGB").tobytes())
    return sha.hexdigest()


def _check(out: Path) -> None:
    try:
        intact = digest(out) == (out / _RECORD).read_text(encoding="utf-8").strip()
    except OSError:
        intact = False
    if not intact:
        raise ValueError(
            f"{out} is no longer as it was drawn; remove it, and the same command draws it "
            "again"
        )


def _make(out: Path) -> None:
    npm, resvg = _npm(), _resvg()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{out.name}.partial-", dir=out.parent
    ) as temporary:
        packages = {
            name: _fetch(npm, name, Path(temporary, name))
            for name in tqdm(SETS, desc="fetching sets", unit="set")
        }
        drawn = Path(temporary, "drawn")
        drawn.mkdir()
        _draw_all(packages, drawn, resvg)
        (drawn / _LICENCES).write_text(_licences(packages), encoding="utf-8")
        (drawn / _RECORD).write_text(f"{digest(drawn)}\n", encoding="utf-8")
        drawn.rename(out)


def _npm() -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            "the emoji are fetched by npm, which is not there; install it, on Debian by: "
            "apt install npm"
        )
    return npm


def _resvg() -> ModuleType:
    try:
        import resvg_py
    except ImportError as error:
        raise ImportError(
            f"emoji are drawn by resvg-py: pip install 'pml-symm[emoji]' ({error})"
        ) from error
    return resvg_py


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


def _draw_all(packages: Mapping[str, Path], folder: Path, resvg: ModuleType) -> None:
    sets = {
        name: json.loads((package / "icons.json").read_text(encoding="utf-8"))
        for name, package in packages.items()
    }
    for icon, names in tqdm(classes(sets).items(), desc="drawing emoji", unit="emoji"):
        (folder / icon).mkdir()
        for name in names:
            picture = _draw(svg(sets[name], icon), resvg)
            picture.save(folder / icon / f"{name}.png")


def _draw(document: str, resvg: ModuleType) -> Image.Image:
    # No icon has text, and looking for fonts takes longer than drawing.
    png = resvg.svg_to_bytes(svg_string=document, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", drawing.size, "white")
    return Image.alpha_composite(white, drawing).convert("RGB")


def _licences(packages: Mapping[str, Path]) -> str:
    lines = [
        "# Licences",
        "",
        f"The pictures are icons of these sets, drawn at {SIZE} x {SIZE} pixels on white.",
        "",
        "| picture | set | author | licence | package |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, package in packages.items():
        info = json.loads((package / "info.json").read_text(encoding="utf-8"))
        author, licence = info["author"], info["license"]
        lines.append(
            f"| {name}.png | {info['name']} | {author['name']}, <{author['url']}> | "
            f"{licence['title']}, <{licence['url']}> | "
            f"@iconify-json/{name} {SETS[name]} |"
        )
    return "\n".join([*lines, ""])
