"""Texts as token ids, from a file of texts with labels, in class-disjoint splits."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from . import splits
from .files import fingerprint, sha256
from .splits import Items, Kind, Reading, Splits

Tokenize = Callable[[Sequence[str]], Tensor]
"""Turns N texts into token ids: shape (N, T), int64, padded to the same length."""
LabelledTexts = Mapping[str, tuple[str, str]]
"""A file and a line -> the text and its class's name, without white space around them."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Texts(Items):
    """A dataset of tokenized texts: ids of shape (N, T) and labels of shape (N,), int64."""

    def __init__(self, ids: Tensor, labels: np.ndarray) -> None:
        self.ids, self.labels = ids, labels

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.ids[index], int(self.labels[index])

    def fingerprint(self) -> str:
        """Of the token ids and the labels."""
        shape, ids = repr(tuple(self.ids.shape)).encode(), self.ids.numpy().tobytes()
        return sha256([shape, ids, self.labels.tobytes()])


class TextFile(Kind):
    """A file of texts with labels."""

    inputs = ("texts",)
    is_own = True

    def fingerprint(self, root: Path, download: bool, test_classes: str | None) -> str:
        """Of the file."""
        return fingerprint([str(root)], root.parent)

    def splits(self, reading: Reading) -> Splits:
        """The texts, in a format of read_texts; skip_bad leaves out those of bad_texts.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is invalid, there are bad texts, the pattern matches no class or
                all, or there are too few classes; the message says where and what.
        """
        options, tokenize = reading.options, reading.tokenize
        assert tokenize is not None
        found = read_texts(reading.root)
        bad = bad_texts(found)
        splits.check_bad(bad, len(found), "texts", "correct them", reading.skip_bad)
        good = [one for place, one in found.items() if place not in bad]
        if not good:
            raise ValueError(f"{reading.root} has no text to use")
        names, labels = np.unique([label for _, label in good], return_inverse=True)
        is_test = splits.is_test_class(names.tolist(), options.test_classes)
        classes = splits.split_classes(np.arange(len(names)), is_test, options)
        items = Texts(tokenize([text for text, _ in good]), labels.astype(np.int64))
        return splits.make_splits(classes, options, items, items, items, bad)


def read_texts(path: Path) -> LabelledTexts:
    """All texts of a file in UTF-8, including those that bad_texts finds.

    Args:
        path: of JSON lines (.jsonl): each line an object with "text" and "label", where a
            label may be an integer; or of comma- or tab-separated values (.csv, .tsv) whose
            first line names these columns. Other fields and columns are ignored.

    Raises:
        OSError: it cannot be read.
        ValueError: it does not exist, has another ending, or has invalid lines; the
            message names all of them.
    """
    ending = path.suffix.lower()
    if ending != ".jsonl" and ending not in _DELIMITERS:
        raise ValueError(f"the file of texts must end in .jsonl, .csv or .tsv, got {path}")
    if not path.is_file():
        raise ValueError(f"the file of texts, {path}, is not there")
    content = path.read_bytes()
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line} is not UTF-8") from error
    records = _json(decoded) if ending == ".jsonl" else _separated(decoded, path)
    found, wrong = {}, {}
    for line, record in records:
        place = f"{path}, line {line}"
        if reason := _what_is_wrong(record):
            wrong[place] = reason
        else:
            found[place] = record["text"].strip(), str(record["label"]).strip()
    if wrong:
        raise ValueError(f"texts cannot be understood:\n{splits.describe(wrong)}")
    return found


def bad_texts(found: LabelledTexts) -> dict[str, str]:
    """Place -> what is wrong, of all that are empty, repeated, or alone in a class.

    A text in several classes is bad, too. The others have two texts or more of a class.

    >>> bad_texts({"line 1": ("", "a"), "line 2": ("b", "b")})
    {'line 1': 'is empty', 'line 2': "is the only text of class 'b'"}
    """
    first: dict[str, str] = {}
    classes: dict[str, set[str]] = {}
    for place, (text, label) in found.items():
        first.setdefault(text, place)
        classes.setdefault(text, set()).add(label)
    bad = {}
    for place, (text, _) in found.items():
        if not text:
            bad[place] = "is empty"
        elif len(classes[text]) > 1:
            bad[place] = "has a text that is in several classes"
        elif first[text] != place:
            bad[place] = "repeats an earlier text of its class"
    sizes = Counter(label for place, (_, label) in found.items() if place not in bad)
    for place, (_, label) in found.items():
        if sizes[label] == 1 and place not in bad:
            bad[place] = f"is the only text of class {label!r:.60}"
    return bad


def _json(content: str) -> Iterator[tuple[int, Any]]:
    """Line numbers and their objects; an error instead of an object that is invalid."""
    # Not splitlines, which also splits inside texts, at other line separators.
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                yield number, ValueError(f"{error.msg}, at column {error.colno}")
            except RecursionError:
                yield number, ValueError("it is nested too deep")
            except ValueError as error:  # an integer of thousands of digits
                yield number, error


def _separated(content: str, path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers and their records; an error instead of a row that is invalid."""
    delimiter = _DELIMITERS[path.suffix.lower()]
    # Strict, or a quotation mark without an end would include the rest of the file.
    reader = csv.DictReader(
        io.StringIO(content, newline=""), delimiter=delimiter, strict=True
    )
    try:
        names = reader.fieldnames or []
        if not {"text", "label"} <= set(names):
            raise ValueError(
                f"{path}, line 1 must name the columns text and label, it names "
                f"{', '.join(names) or 'none'}"
            )
        repeated = [name for name, n in Counter(names).items() if n > 1]
        if repeated:
            raise ValueError(f"{path}, line 1 repeats the column {repeated[0]!r:.60}")
        for record in reader:
            yield reader.line_num, record
    except csv.Error as error:
        yield reader.line_num + 1, error  # where the row begins


def _what_is_wrong(record: Any) -> str | None:
    if isinstance(record, Exception):
        return f"cannot be read ({record})"
    if not isinstance(record, dict):
        return "is not an object"
    if None in record:
        return "has more fields than the first line"
    for name, kinds in (("text", str), ("label", (str, int))):
        value = record.get(name)
        if value is None:
            return f"has no {name}"
        if not isinstance(value, kinds) or isinstance(value, bool):
            return f"has the {name} {value!r:.40}, which is no string"
    try:
        f"{record['text']}{record['label']}".encode()
    except UnicodeEncodeError:
        return "has half of a surrogate pair"  # which JSON can write
    return None if str(record["label"]).strip() else "has an empty label"
