"""Texts as token ids, from a file of texts with labels, in class-disjoint splits."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from .splits import (
    SplitOptions,
    Splits,
    check_bad,
    describe,
    is_test_class,
    make_splits,
    split_classes,
)

Tokenize = Callable[[Sequence[str]], Tensor]
"""Turns N texts into token ids: shape (N, T), int64, padded to the same length."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Texts(Dataset):
    """A dataset of tokenized texts.

    Args:
        ids: shape (N, T), int64, their token ids.
        labels: shape (N,), int64, their classes.
    """

    is_random = False

    def __init__(self, ids: Tensor, labels: np.ndarray) -> None:
        self.ids, self.labels = ids, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.ids[index], int(self.labels[index])

    def fingerprint(self) -> str:
        """SHA-256 of the token ids and labels, in hexadecimal."""
        digest = hashlib.sha256(repr(tuple(self.ids.shape)).encode())
        digest.update(self.ids.numpy().tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def texts(
    path: Path, tokenize: Tokenize, options: SplitOptions, skip_bad: bool = False
) -> Splits:
    """A file of texts; a tenth of its training classes is for validation.

    Args:
        path: of the file, in a format of read_texts.
        tokenize: the tokenizer of the trunk.
        options: how to split its classes, by default to test on the second half by name.
        skip_bad: leave out bad texts instead of raising an error.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is invalid, there are bad texts, the pattern matches no class or
            all, or there are too few classes; the message says where and what.
    """
    found = read_texts(path)
    bad = bad_texts(found)
    check_bad(bad, len(found), "texts", "correct them", skip_bad)
    good = [one for one in found if one.place not in bad]
    if not good:
        raise ValueError(f"{path} has no text to use")
    names, labels = np.unique([one.label for one in good], return_inverse=True)
    is_test = is_test_class(names.tolist(), options.test_classes)
    classes = split_classes(np.arange(len(names)), is_test, options)
    items = Texts(tokenize([one.text for one in good]), labels.astype(np.int64))
    return make_splits(classes, options, items, items, items, bad)


class LabelledText(NamedTuple):
    """A text of a file.

    Attributes:
        place: the file and the line, for messages.
        text: without white space around it.
        label: the name of its class, without white space around it.
    """

    place: str
    text: str
    label: str


def read_texts(path: Path) -> list[LabelledText]:
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
    found, wrong = [], {}
    for line, record in records:
        place = f"{path}, line {line}"
        if reason := _what_is_wrong(record):
            wrong[place] = reason
        else:
            text, label = record["text"].strip(), str(record["label"]).strip()
            found.append(LabelledText(place, text, label))
    if wrong:
        raise ValueError(f"texts cannot be understood:\n{describe(wrong)}")
    return found


def bad_texts(found: Sequence[LabelledText]) -> dict[str, str]:
    """Place -> what is wrong, of all that are empty, repeated, or alone in a class.

    A text in several classes is bad, too. The others have two texts or more of a class.

    >>> bad_texts([LabelledText("line 1", "", "a"), LabelledText("line 2", "b", "b")])
    {'line 1': 'is empty', 'line 2': "is the only text of class 'b'"}
    """
    first: dict[str, LabelledText] = {}
    classes: dict[str, set[str]] = {}
    for one in found:
        first.setdefault(one.text, one)
        classes.setdefault(one.text, set()).add(one.label)
    bad = {}
    for one in found:
        if not one.text:
            bad[one.place] = "is empty"
        elif len(classes[one.text]) > 1:
            bad[one.place] = "has a text that is in several classes"
        elif first[one.text] is not one:
            bad[one.place] = "repeats an earlier text of its class"
    sizes = Counter(one.label for one in found if one.place not in bad)
    for one in found:
        if sizes[one.label] == 1 and one.place not in bad:
            bad[one.place] = f"is the only text of class {one.label!r:.60}"
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
