"""Files of texts with labels, and which of their texts cannot be trained on."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .bad_items import describe

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


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
    if path.suffix.lower() not in {".jsonl", *_DELIMITERS}:
        raise ValueError(f"the file of texts must end in .jsonl, .csv or .tsv, got {path}")
    if not path.is_file():
        raise ValueError(f"the file of texts, {path}, is not there")
    content = _decode(path)
    delimiter = _DELIMITERS.get(path.suffix.lower())
    records = _json(content) if delimiter is None else _separated(content, delimiter, path)
    texts, wrong = [], {}
    for line, record in records:
        place = f"{path}, line {line}"
        reason = _what_is_wrong(record)
        if reason is None:
            texts.append(
                LabelledText(place, record["text"].strip(), str(record["label"]).strip())
            )
        else:
            wrong[place] = reason
    if wrong:
        raise ValueError(f"texts cannot be understood:\n{describe(wrong)}")
    return texts


def bad_texts(texts: Sequence[LabelledText]) -> dict[str, str]:
    """Every text that is empty, repeated, in several classes, or alone in its class.

    Args:
        texts: of one file.

    Returns:
        place -> what is wrong with it. Without these, each class has two different texts.

    >>> bad_texts([LabelledText("line 1", "", "a"), LabelledText("line 2", "b", "b")])
    {'line 1': 'is empty', 'line 2': "is the only text of class 'b'"}
    """
    first: dict[str, LabelledText] = {}
    classes: dict[str, set[str]] = {}
    for one in texts:
        first.setdefault(one.text, one)
        classes.setdefault(one.text, set()).add(one.label)
    bad = {}
    for one in texts:
        if not one.text:
            bad[one.place] = "is empty"
        elif len(classes[one.text]) > 1:
            bad[one.place] = "has a text that is in several classes"
        elif first[one.text] is not one:
            bad[one.place] = "repeats an earlier text of its class"
    sizes = Counter(one.label for one in texts if one.place not in bad)
    for one in texts:
        if one.place not in bad and sizes[one.label] == 1:
            bad[one.place] = f"is the only text of class {one.label!r:.60}"
    return bad


def _decode(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line} is not UTF-8") from error


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


def _separated(content: str, delimiter: str, path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers and their records; an error instead of a row that is invalid."""
    # Strict, or a quotation mark without an end would include the rest of the file.
    reader = csv.DictReader(
        io.StringIO(content, newline=""), delimiter=delimiter, strict=True
    )
    try:
        missing = {"text", "label"} - set(reader.fieldnames or [])
        if missing:
            raise ValueError(
                f"{path}, line 1 must name the columns text and label, it names "
                f"{', '.join(reader.fieldnames or []) or 'none'}"
            )
        repeated = [name for name, n in Counter(reader.fieldnames).items() if n > 1]
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
