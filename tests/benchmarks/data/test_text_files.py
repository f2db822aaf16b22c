"""Files of texts: what is read, and the error messages."""

import pytest

from benchmarks.data.text_files import LabelledText, bad_texts, read_texts

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
    assert [x[1:] for x in texts] == [("a ünd, b", "x"), ("c", "2")]
    first = 1 if name == "texts.jsonl" else 2
    places = [f"{tmp_path / name}, line {number}" for number in (first, 3)]
    assert [x.place for x in texts] == places


def test_a_line_ends_only_where_json_says_so(tmp_path):
    (text,) = read(tmp_path, "texts.jsonl", '{"text": "a\u2028b\x85c", "label": "x"}\r\n')
    assert text.text == "a\u2028b\x85c"


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
    assert {x.label for x in texts} == {"cat"}


def test_long_labels_are_shortened():
    (reason,) = bad_texts([LabelledText("line 1", "a", 1000 * "x")]).values()
    assert reason.startswith("is the only text of class 'xxx") and len(reason) < 100


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.csv, is not there"):
        read_texts(tmp_path / "nothing.csv")


def test_what_is_bad_leaves_classes_of_two_different_texts():
    texts = [
        LabelledText(f"line {number}", *text)
        for number, text in enumerate(
            [("a", "x"), ("b", "x"), ("a", "x"), ("", "x"), ("c", "y"), ("c", "z")]
            + [("d", "y"), ("e", "y"), ("f", "z")],
            start=1,
        )
    ]
    assert bad_texts(texts) == {
        "line 3": "repeats an earlier text of its class",
        "line 4": "is empty",
        "line 5": "has a text that is in several classes",
        "line 6": "has a text that is in several classes",
        "line 9": "is the only text of class 'z'",
    }
