"""Texts in class-disjoint splits: files that are read, and error messages."""

import json
import re

import numpy as np
import pytest
import torch

from benchmarks.data.splits import FOLDS, Reading, SplitOptions
from benchmarks.data.texts import TextFile, bad_texts, read_texts

CLASSES = [f"class {number:02d}" for number in range(20)]


def texts(path, tokenize, skip_bad=False, **options):
    split = SplitOptions(**options)
    reading = Reading(path, split, None, tokenize, False, skip_bad, False, False)
    return TextFile().splits(reading)


def tokenize(some):
    ids = [torch.tensor([ord(x) for x in text]) for text in some]
    return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)


def write(tmp_path, rows):
    path = tmp_path / "texts.jsonl"
    lines = (json.dumps({"text": text, "label": label}) for text, label in rows)
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def path(tmp_path):
    rows = [(f"{word} {label}", label) for word in ("a", "two") for label in CLASSES]
    return write(tmp_path, rows)


def classes_of(split):
    return set(split.labels.tolist())


def test_the_second_half_by_name_is_the_test(path):
    splits = texts(path, tokenize, seed=0)
    assert classes_of(splits.train) | classes_of(splits.val) == set(range(10))
    assert len(classes_of(splits.val)) == 2
    assert not classes_of(splits.train) & classes_of(splits.val)
    assert classes_of(splits.test) == set(range(10, 20))
    assert splits.skipped == {} and splits.pretrain is None


def test_items_are_token_ids_of_one_length(path):
    splits = texts(path, tokenize, seed=0)
    ids, label = splits.test[0]
    assert ids.dtype == torch.int64 and ids.shape == (len("two class 00"),)
    assert "".join(map(chr, ids)) == "a class 10" + 2 * "\0"
    assert label == 10 == splits.test.labels[0]
    assert [splits.val[x][1] for x in range(len(splits.val))] == splits.val.labels.tolist()


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"max_classes": 3}, (3, 2, 3)),
        ({"train_classes": 4}, (4, 2, 10)),
        ({"fold": 0}, (7, 3, 10)),
        ({"test_classes": "class 0*"}, (8, 2, 10)),
        ({"test_classes": "class ?5"}, (16, 2, 2)),
    ],
)
def test_classes_are_chosen(options, sizes, path):
    splits = texts(path, tokenize, seed=0, **options)
    assert tuple(len(classes_of(x)) for x in splits[:3]) == sizes


def test_folds_validate_every_training_class_once(path):
    folds = [texts(path, tokenize, seed=0, fold=fold) for fold in range(FOLDS)]
    validated = [label for fold in folds for label in classes_of(fold.val)]
    assert sorted(validated) == list(range(10))


def test_a_reserved_third_is_in_no_other_split(path):
    splits = texts(path, tokenize, seed=0, reserve=True)
    reserved = classes_of(splits.pretrain)
    assert len(reserved) == 3
    for split in splits[:3]:
        assert not reserved & classes_of(split)


@pytest.mark.parametrize("pattern", ["nothing", "class*"])
def test_a_pattern_of_no_class_or_all_is_refused(pattern, path):
    with pytest.raises(ValueError, match=f"got {re.escape(repr(pattern))}"):
        texts(path, tokenize, seed=0, test_classes=pattern)


@pytest.mark.parametrize("pattern", [None, "class*"])
def test_a_file_without_a_text_to_use_is_named(pattern, tmp_path):
    path = write(tmp_path, [("", "x")])
    for skip_bad in (True, False):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            texts(path, tokenize, seed=0, skip_bad=skip_bad, test_classes=pattern)


def test_too_few_classes_are_refused(tmp_path):
    path = write(tmp_path, [(f"{x} {y}", y) for x in "ab" for y in "xyz"])
    with pytest.raises(ValueError, match="it has 1 and 2"):
        texts(path, tokenize, seed=0)


def test_bad_texts_are_all_named_or_left_out(path):
    with path.open("a") as file:
        file.write('\n{"text": " ", "label": "class 03"}')
        file.write('\n{"text": "alone", "label": "class 99"}')
    with pytest.raises(ValueError, match="2 of 42 texts are bad") as error:
        texts(path, tokenize, seed=0)
    reasons = {
        f"{path}, line 41": "is empty",
        f"{path}, line 42": "is the only text of class 'class 99'",
    }
    for place, reason in reasons.items():
        assert f"{place} {reason}\n" in str(error.value)
    assert "--skip-bad" in str(error.value)
    splits = texts(path, tokenize, seed=0, skip_bad=True)
    assert splits.skipped == reasons
    assert sum(map(len, splits[:3])) == 40


def test_a_fingerprint_is_that_of_ids_and_labels(path, tmp_path):
    def fingerprint(path, tokenize=tokenize):
        return texts(path, tokenize, seed=0).train.items.fingerprint()

    assert fingerprint(path) == fingerprint(path)
    assert fingerprint(path) != fingerprint(path, lambda some: tokenize(some) + 1)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    (tmp_path / "other").mkdir()
    labels = np.roll([row["label"] for row in rows], 1).tolist()
    swapped = [(row["text"], label) for row, label in zip(rows, labels, strict=True)]
    assert fingerprint(write(tmp_path / "other", swapped)) != fingerprint(path)


FILES = {
    "texts.jsonl": '{"text": "a ünd, b", "label": "x", "n":1}\n\n{"text":" c", "label":2}',
    "texts.csv": 'more,text,label\r\n1,"a ünd, b",x\r\n,c,2\r\n',
    "texts.tsv": "text\tlabel\na ünd, b\tx\nc \t2\n",
}


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_texts(path)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_is_read_alike(name, mark, tmp_path):
    texts = read(tmp_path, name, mark + FILES[name])
    assert [*texts.values()] == [("a ünd, b", "x"), ("c", "2")]
    first = 1 if name == "texts.jsonl" else 2
    places = [f"{tmp_path / name}, line {number}" for number in (first, 3)]
    assert [*texts] == places


def test_a_line_ends_only_where_json_says_so(tmp_path):
    texts = read(tmp_path, "texts.jsonl", '{"text": "a\u2028b\x85c", "label": "x"}\r\n')
    assert [text for text, _ in texts.values()] == ["a\u2028b\x85c"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'text'", "cannot be read (Expecting property name"),
        ("[1]", "is not an object"),
        ('"text"', "is not an object"),
        ('{"label": "x"}', "has no text"),
        ('{"text": "a"}', "has no label"),
        ('{"text": 1, "label": "x"}', "has the text 1, which is no string"),
        ('{"text": "a", "label": 1.5}', "has the label 1.5, which is no string"),
        ('{"text": "a", "label": true}', "has the label True, which is no string"),
        ('{"text": "a", "label": ""}', "has an empty label"),
        ('{"text": "a", "label": " \\t"}', "has an empty label"),
        ('{"text": ' + 100_000 * "[", "cannot be read (it is nested too deep)"),
        (
            '{"text": "a", "label": ' + 5_000 * "1" + "}",
            "cannot be read (Exceeds",
        ),
        ('{"text": "\\ud83d", "label": "x"}', "has half of a surrogate pair"),
    ],
)
def test_lines_that_cannot_be_understood_are_all_named(line, message, tmp_path):
    good = '{"text": "a", "label": "x"}'
    with pytest.raises(ValueError, match="cannot be understood") as error:
        read(tmp_path, "texts.jsonl", "\n".join([good, line, good, line]))
    for number in (2, 4):
        assert f"texts.jsonl, line {number} {message}" in str(error.value)
    assert "line 1 " not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("texts.csv", "", r"line 1 must name .* text and label, it names none"),
        ("texts.csv", "txt,label\na,b", r"line 1 must name .*, it names txt, label"),
        ("texts.csv", "text,label\na", "line 2 has no label"),
        ("texts.csv", "text,label\na,x,y", "line 2 has more fields than the first line"),
        ("texts.csv", 'text,label\na,x\n"b,x\nc,x', r"line 3 cannot be read \(unexpected"),
        ("texts.csv", "text,label\na,", "line 2 has an empty label"),
        ("texts.csv", "text,label\na, ", "line 2 has an empty label"),
        ("texts.csv", "text,label,text\na,x,b", "line 1 repeats the column 'text'"),
        ("texts.jsonl", b'{"text":\n"\xff', "line 2 is not UTF-8"),
        ("texts.json", "[]", r"must end in \.jsonl, \.csv or \.tsv, got .*texts\.json"),
    ],
)
def test_bad_files_are_refused(name, content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, name, content)


def test_white_space_around_a_label_makes_no_class(tmp_path):
    texts = read(tmp_path, "texts.csv", "text,label\na,cat\nb,cat \nc, cat\n")
    assert {label for _, label in texts.values()} == {"cat"}


def test_long_labels_are_shortened():
    (reason,) = bad_texts({"line 1": ("a", 1000 * "x")}).values()
    assert reason.startswith("is the only text of class 'xxx") and len(reason) < 100


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.csv, is not there"):
        read_texts(tmp_path / "nothing.csv")


def test_what_is_bad_leaves_classes_of_two_different_texts():
    texts = {
        f"line {number}": text
        for number, text in enumerate(
            [("a", "x"), ("b", "x"), ("a", "x"), ("", "x"), ("c", "y"), ("c", "z")]
            + [("d", "y"), ("e", "y"), ("f", "z")],
            start=1,
        )
    }
    assert bad_texts(texts) == {
        "line 3": "repeats an earlier text of its class",
        "line 4": "is empty",
        "line 5": "has a text that is in several classes",
        "line 6": "has a text that is in several classes",
        "line 9": "is the only text of class 'z'",
    }
