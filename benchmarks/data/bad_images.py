"""Which pictures of a dataset cannot be trained on, and why."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from tqdm import tqdm

from .files import default_root, keep_in_cache
from .fingerprints import state_of
from .images import UnknownRangeError, decode


def bad_images(paths: Sequence[str], labels: np.ndarray) -> dict[str, str]:
    """Every image that is missing, unreadable, listed twice, or alone in its class.

    Reading takes a while: the result is cached in the user's cache folder, for as long as
    names, sizes and times of the files stay the same.

    Args:
        paths: of the images.
        labels: shape (N,), their classes. Each class must have two good images.

    Returns:
        path -> what is wrong with it.
    """
    bad = {path: "is missing" for path in paths if not os.path.isfile(path)}
    readable = [path for path in dict.fromkeys(paths) if path not in bad]
    bad |= _unreadable(readable)
    times = Counter(paths)
    bad |= {path: f"is named {n} times" for path, n in times.items() if n > 1}
    good = np.array([path not in bad for path in paths], dtype=bool)
    _, inverse, counts = np.unique(labels[good], return_inverse=True, return_counts=True)
    for row in np.flatnonzero(good)[counts[inverse] == 1]:
        bad[paths[row]] = f"is the only image of class {labels[row]}"
    return bad


def _unreadable(paths: Sequence[str]) -> dict[str, str]:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(state_of(path))
    cache = default_root() / f"images-{digest.hexdigest()[:16]}.json"
    try:
        return json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass  # missing or damaged: read the images
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = tqdm(
            pool.map(_what_is_wrong, paths), "reading images", len(paths), unit="image"
        )
        bad = {path: x for path, x in zip(paths, reasons, strict=True) if x is not None}
    keep_in_cache(cache, lambda file: file.write(json.dumps(bad).encode()))
    return bad


def _what_is_wrong(path: str) -> str | None:
    try:
        decode(path, pixels=1)  # JPEG: to an eighth of its size, but reads the whole file
    except UnknownRangeError as error:
        return str(error)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow's own message would repeat the path.
        return f"cannot be read as an image ({type(error).__name__})"
    return None
