"""The output of a frozen stem for every item, computed once and kept on the disk."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .files import default_root, remove_unfinished, warn_of_cache, written_whole
from .splits import Items, Splits, Subset

LOGGER = logging.getLogger(__name__)

_BATCH_SIZE = 128
_CHECKSUM = 4  # bytes after the array


class StemFeatures(Dataset):
    """The output of a frozen stem for every item: the input of the stages after it.

    It is in one memory-mapped file in the user's cache folder, which all runs with
    the same items and the same stem share, also at the same time. A digest of both is its
    name, and it is computed again, with a warning, if it is damaged. Numbers are in
    half precision if all of them fit (up to 65504): its relative error, at most 2^-11,
    is small compared with any augmentation, and it halves the bytes to read.

    Args:
        items: pictures or texts.
        stem: stages for evaluation, items of shape (B, ...) to tensors of shape (B, ...).
        augmentations: how many versions of each item to keep, if they are random; torch's
            generator draws one of them each time.
        root: the folder of the cache; by default pml-symm in the user's cache folder.
        device: what to compute on.
        workers: processes that load items.
        before_batch: called before each batch is computed; may raise an error to stop.

    Attributes:
        items: as given.
        labels: shape (N,), int64, of the items.
        is_random: whether an item has several versions.
        path: of the file: an array of shape (versions, N, ...), then its CRC-32.
    """

    def __init__(
        self,
        items: Items,
        stem: nn.Sequential,
        augmentations: int = 1,
        root: Path | None = None,
        device: torch.device | str = "cpu",
        workers: int = 0,
        before_batch: Callable[[], None] = lambda: None,
    ) -> None:
        self.items, self.labels = items, items.labels
        versions = augmentations if items.is_random else 1
        self.is_random = versions > 1
        self._digest = _digest(items, stem, versions)
        computed = _Computed(
            _Versions(items, versions), stem, device, workers, before_batch
        )
        folder = (root or default_root()) / f"stem-{self._digest[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            warn_of_cache(folder.parent, error.strerror)
            # It is removed with this object.
            self._temporary = tempfile.TemporaryDirectory(prefix="pml-symm-")
            folder = Path(self._temporary.name)
        self.path = _kept(folder, computed)

    @cached_property
    def _features(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Send the file's name to another process, not its contents."""
        own = {"_features", "_temporary"}
        return {name: x for name, x in vars(self).items() if name not in own}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        version = int(torch.randint(len(self._features), ())) if self.is_random else 0
        features = self._features[version, index].astype(np.float32)
        return torch.from_numpy(features), int(self.labels[index])

    def fingerprint(self) -> str:
        """SHA-256 of the items and of the stem, in hexadecimal."""
        return self._digest


def keep_stem(splits: Splits, stem: nn.Sequential, **options: Any) -> Splits:
    """The same splits with a stem's output as items.

    Args:
        splits: of items.
        stem: see StemFeatures.
        options: of StemFeatures.
    """
    # Splits share items. Compare by identity: a digest would read the state of every file.
    kept: dict[int, StemFeatures] = {}

    def with_stem(split: Subset) -> Subset:
        key = id(split.items)
        if key not in kept:
            kept[key] = StemFeatures(split.items, stem, **options)
        return Subset(kept[key], split.rows)

    return splits._replace(
        train=with_stem(splits.train),
        val=with_stem(splits.val),
        test=with_stem(splits.test),
    )


def without_stem(dataset: Dataset) -> Dataset:
    """The same rows with their items before the stem, to show them."""
    if isinstance(dataset, Subset) and isinstance(dataset.items, StemFeatures):
        return Subset(dataset.items.items, dataset.rows)
    return dataset


def _digest(items: Items, stem: nn.Sequential, versions: int) -> str:
    recipe = (items.fingerprint(), repr(stem), versions, torch.__version__)
    digest = hashlib.sha256(repr(recipe).encode())
    for name, value in stem.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Versions(Dataset):
    """Some versions of each item, always the same; the first version of all comes first."""

    def __init__(self, items: Items, versions: int) -> None:
        self.items, self.versions = items, versions

    def __len__(self) -> int:
        return self.versions * len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        # The same seed in every worker process; GPU generators draw nothing here.
        torch.default_generator.manual_seed(index)
        return self.items[index % len(self.items)][0]


class _Computed:
    """Batches of a stem's output for every version of every item."""

    def __init__(
        self,
        items: _Versions,
        stem: nn.Sequential,
        device: torch.device | str,
        workers: int,
        before_batch: Callable[[], None],
    ) -> None:
        self.leading = items.versions, len(items.items)  # of the whole array's shape
        self._loader = DataLoader(items, _BATCH_SIZE, num_workers=workers)
        self._stem, self._device, self._before_batch = stem, device, before_batch

    @torch.no_grad()
    def __iter__(self) -> Iterator[np.ndarray]:
        stem = self._stem.to(self._device)
        total = self.leading[0] * self.leading[1]
        with (
            torch.random.fork_rng(devices=[]),
            tqdm(desc="frozen stages", total=total, unit="item") as bar,
        ):
            for batch in self._loader:
                self._before_batch()
                features = stem(batch.to(self._device)).float().cpu().contiguous().numpy()
                yield features
                bar.update(len(features))


def _kept(folder: Path, computed: _Computed) -> Path:
    """The file in a folder, computed if it is missing or damaged."""
    path = folder / "features.npy"
    # Other processes that need the same file wait, instead of computing it too.
    with FileLock(folder / "lock"):
        if path.exists():
            try:
                _check(path, computed.leading)
                return path
            except (ValueError, EOFError) as error:
                LOGGER.warning("%s is damaged and is computed again: %s", path, error)
        remove_unfinished(folder)
        try:
            _write(path, computed, np.float16)
        except _TooLargeError:
            _write(path, computed, np.float32)
    return path


class _TooLargeError(Exception):
    """A number does not fit into half precision."""


def _write(path: Path, computed: _Computed, dtype: type[np.floating]) -> None:
    checksum = 0
    with written_whole(path) as file, np.errstate(over="ignore"):
        for number, features in enumerate(computed):
            batch = features.astype(dtype)
            if dtype is np.float16 and np.isinf(batch).any():
                raise _TooLargeError
            if number == 0:
                header = {
                    "descr": np.lib.format.dtype_to_descr(batch.dtype),
                    "fortran_order": False,
                    "shape": computed.leading + batch.shape[1:],
                }
                np.lib.format.write_array_header_1_0(file, header)
            file.write(batch.data)
            checksum = zlib.crc32(batch.data, checksum)
        file.write(checksum.to_bytes(_CHECKSUM, "big"))


def _check(path: Path, leading: tuple[int, int]) -> None:
    """Raise ValueError unless the array is whole and unchanged."""
    features = np.load(path, mmap_mode="r")
    if features.shape[:2] != leading:
        raise ValueError(f"its shape is {features.shape}, not {leading} and more")
    with path.open("rb") as file:
        file.seek(features.offset + features.nbytes)
        if file.read() != zlib.crc32(features.data).to_bytes(_CHECKSUM, "big"):
            raise ValueError("its checksum does not match its contents")
