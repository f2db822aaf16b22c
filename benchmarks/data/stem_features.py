"""The output of a frozen stem for every item, computed once and kept on the disk."""

from __future__ import annotations

import functools
import logging
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .files import can_write, default_root, locked, remove_unfinished, sha256, written_whole
from .splits import Items, Splits, Subset

LOGGER = logging.getLogger(__name__)

_BATCH_SIZE = 128
_CHECKSUM = 4  # bytes after the array


class StemFeatures(Items):
    """The output of a frozen stem for every item: the input of the stages after it.

    It is in one memory-mapped file in the cache, which all runs with the same items and the
    same stem share, also at the same time. A digest of both is its name, and it is computed
    again, with a warning, if it is damaged. Numbers are in half precision if all of them
    fit (up to 65504): its relative error, at most 2^-11, is small compared with any
    augmentation, and it halves the bytes to read.

    Args:
        items: pictures or texts.
        stem: stages for evaluation, items of shape (B, ...) to tensors of shape (B, ...).
        augmentations: how many versions of each item to keep, if they are random; torch's
            generator draws one of them each time.
        device, workers: to compute with.
        before_batch: called before each batch is computed; may raise an error to stop.
        while_waiting: called every second of waiting for another run that computes the
            same; may raise an error to stop.

    Attributes:
        is_random: whether an item has several versions.
        path: of the file: an array of shape (versions, N, ...), then its CRC-32.
    """

    def __init__(
        self,
        items: Items,
        stem: nn.Sequential,
        augmentations: int = 1,
        device: torch.device | str = "cpu",
        workers: int = 0,
        before_batch: Callable[[], object] = lambda: None,
        while_waiting: Callable[[], object] = lambda: None,
    ) -> None:
        self.items, self.labels = items, items.labels
        versions = _Versions(items, augmentations if items.is_random else 1)
        self.is_random = versions.number > 1
        self._digest = _digest(versions, stem)
        root = default_root()
        if not can_write(root):
            # It is removed with this object.
            self._temporary = tempfile.TemporaryDirectory(prefix="pml-symm-")
            root = Path(self._temporary.name)
        self.path = root / f"stem-{self._digest[:16]}" / "features.npy"
        write = functools.partial(
            _write, self.path, versions, stem, device, workers, before_batch
        )
        waiting = "waiting for another run, which computes the same frozen stages"
        warn = functools.partial(LOGGER.warning, waiting)
        with locked(self.path.with_name("lock"), warn, while_waiting):
            if not _is_whole(self.path, versions):
                remove_unfinished(self.path.parent)
                try:
                    write(np.float16)
                except OverflowError:
                    write(np.float32)

    @functools.cached_property
    def _features(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Send the file's name to another process, not its contents."""
        own = {"_features", "_temporary"}
        return {name: x for name, x in vars(self).items() if name not in own}

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        version = int(torch.randint(len(self._features), ())) if self.is_random else 0
        features = self._features[version, index].astype(np.float32)
        return torch.from_numpy(features), int(self.labels[index])

    def fingerprint(self) -> str:
        """Of the items and of the stem."""
        return self._digest


def keep_stem(splits: Splits, stem: nn.Sequential, **options: Any) -> Splits:
    """The same splits with a stem's output as items; options are those of StemFeatures."""
    # Splits share items. Compare by identity: a digest would read the state of every file.
    features = functools.cache(lambda items: StemFeatures(items, stem, **options))
    train, val, test = (Subset(features(x.items), x.rows) for x in splits[:3])
    return splits._replace(train=train, val=val, test=test)


def without_stem(dataset: Dataset) -> Dataset:
    """The same rows with their items before the stem, to show them."""
    if isinstance(dataset, Subset) and isinstance(dataset.items, StemFeatures):
        return Subset(dataset.items.items, dataset.rows)
    return dataset


class _Versions(Dataset):
    """Some versions of each item, always the same; the first version of all comes first."""

    def __init__(self, items: Items, number: int) -> None:
        self.items, self.number = items, number

    def __len__(self) -> int:
        return self.number * len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        # The same seed in every worker process; GPU generators draw nothing here.
        torch.default_generator.manual_seed(index)
        return self.items[index % len(self.items)][0]


def _digest(versions: _Versions, stem: nn.Sequential) -> str:
    items = versions.items.fingerprint()
    recipe = (items, repr(stem), versions.number, torch.__version__)
    parts = [repr(recipe).encode()]
    for name, value in stem.state_dict().items():
        parts += [name.encode(), value.cpu().contiguous().numpy().tobytes()]
    return sha256(parts)


@torch.no_grad()
def _write(
    path: Path,
    versions: _Versions,
    stem: nn.Sequential,
    device: torch.device | str,
    workers: int,
    before_batch: Callable[[], object],
    dtype: type[np.floating],
) -> None:
    """Write an array and its checksum; OverflowError if half precision is too small."""
    stem = stem.to(device)
    checksum = 0
    loader = DataLoader(versions, _BATCH_SIZE, num_workers=workers)
    with (
        written_whole(path) as file,
        torch.random.fork_rng(devices=[]),
        tqdm(desc="frozen stages", total=len(versions), unit="item") as bar,
    ):
        for number, inputs in enumerate(loader):
            before_batch()
            features = stem(inputs.to(device)).float().cpu().contiguous().numpy()
            with np.errstate(over="ignore"):
                batch = features.astype(dtype)
            if dtype is np.float16 and np.isinf(batch).any():
                raise OverflowError
            if number == 0:
                header = np.lib.format.header_data_from_array_1_0(batch)
                header["shape"] = versions.number, len(versions.items), *batch.shape[1:]
                np.lib.format.write_array_header_1_0(file, header)
            file.write(batch.data)
            checksum = zlib.crc32(batch.data, checksum)
            bar.update(len(batch))
        file.write(checksum.to_bytes(_CHECKSUM, "big"))


def _is_whole(path: Path, versions: _Versions) -> bool:
    """Whether the file is there and unchanged."""
    if not path.exists():
        return False
    expected = versions.number, len(versions.items)
    try:
        features = np.load(path, mmap_mode="r")
        if features.shape[:2] != expected:
            raise ValueError(f"its shape is {features.shape}, not {expected} and more")
        with path.open("rb") as file:
            file.seek(features.offset + features.nbytes)
            if file.read() != zlib.crc32(features.data).to_bytes(_CHECKSUM, "big"):
                raise ValueError("its checksum does not match its contents")
    except (ValueError, EOFError) as error:
        LOGGER.warning("%s is damaged and is computed again: %s", path, error)
        return False
    return True
