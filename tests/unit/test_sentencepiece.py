"""tokenizer.model: the ids of sentencepiece, out of the tokenizers package."""

import io
import json
import random
import sys

import pytest
import sentencepiece
from faults import SEED
from sentencepiece import sentencepiece_model_pb2
from small_model import write_folder
from sterna.host.model.image import Image
from sterna.host.model.model import Model
from sterna.host.model.sentencepiece_file import SentencePieceError, tokenizer_json_of
from sterna.host.model.text import Vocabulary

LETTERS = "aeiou the  \n\t<s></s>éß漢字😀xyzqQ1290.,'ﬁ\u0301"
WORDS = "the cat sat on a mat and then the dog came to see what that cat had there once upon a time".split()


def trained(words=WORDS, ends=".!é", **options):
    """A tokenizer.model (bytes) of few pieces."""
    rng, out = random.Random(3), io.BytesIO()
    lines = [" ".join(rng.choices(words, k=8)) + rng.choice(ends) for _ in range(400)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, num_threads=1, minloglevel=2, **{
            "vocab_size": 330, "model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": False,
            "normalization_rule_name": "identity"} | options)
    return out.getvalue()


@pytest.fixture(scope="module")
def model():
    return trained()


def texts():
    rng = random.Random(SEED)
    yield from ("", " ", "a", "  a", "a  b ", "\n", "the cat", " the cat", "<s>a</s>", "<0x41>", "catcatcat" * 9)
    for _ in range(300):
        yield "".join(rng.choices(LETTERS, k=rng.randrange(1, 40)))
        yield " ".join(rng.choices(WORDS, k=rng.randrange(1, 20)))
        yield "".join(rng.choices("thecandosmu ", k=30))  # where merges stand in each other's way


@pytest.mark.parametrize("options", [{}, {"add_dummy_prefix": False}, {"bos_id": -1}],
                         ids=["as ever", "front", "start"])
def test_ids_are_those_of_sentencepiece(model, options):
    data = trained(**options) if options else model
    wanted = sentencepiece.SentencePieceProcessor(model_proto=data)
    vocabulary = Vocabulary(tokenizer_json_of(data), 2, 330)
    start = [1] if wanted.bos_id() == 1 else [2]
    assert len({wanted.id_to_piece(k) for k in range(330)} & set(WORDS)) < len(WORDS) and len(vocabulary) == 330
    for text in texts():
        assert vocabulary.encode(text) == start + wanted.encode(text), text
        got = b"".join(map(vocabulary.token_bytes, wanted.encode(text))).decode()
        assert got.removeprefix(" " if "add_dummy_prefix" not in options else "") == text


def test_without_a_start_mark(model):
    assert Vocabulary(tokenizer_json_of(model, False), 2, 330).start == [2]


@pytest.mark.parametrize("options, message", [
    ({"normalization_rule_name": "nmt_nfkc"}, "it normalises texts by 'nmt_nfkc', and only \"identity\" is read"),
    ({"model_type": "unigram", "hard_vocab_limit": False}, "its model is no BPE"),
    ({"byte_fallback": False, "vocab_size": 60}, "it has no pieces for bytes"),
    ({"remove_extra_whitespaces": True}, "it takes out spaces that stand side by side"),
    ({"treat_whitespace_as_suffix": True}, "it writes spaces behind words"),
    ({"user_defined_symbols": ["[X]"]}, "it has pieces that its user has defined"),
])
def test_what_would_give_other_ids_is_refused(options, message):
    with pytest.raises(SentencePieceError, match=message) as error:
        tokenizer_json_of(trained(**{"vocab_size": 300} | options))
    assert "save_pretrained(FOLDER), which writes tokenizer.json" in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\xff" * 50, b"{}", bytes(9)])
def test_what_is_no_tokenizer(data):
    with pytest.raises(SentencePieceError, match="download it again"):
        tokenizer_json_of(data)


def test_a_long_piece_is_refused(model):
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    proto.pieces[-1].piece = "a" * 256
    assert json.loads(tokenizer_json_of(proto.SerializeToString()))["model"]["vocab"]["a" * 256] == 329
    proto.pieces[-1].piece = "a" * 257
    with pytest.raises(SentencePieceError, match="the piece 'aaa.* has 257 characters: at most 256 are read"):
        tokenizer_json_of(proto.SerializeToString())


def test_a_checkpoint_with_tokenizer_model(sterna, tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    path = folder / "tokenizer.model"
    path.write_bytes(trained(vocab_size=300))
    code, _, err = sterna("convert", folder, "-o", tmp_path / "m.sterna")
    assert code == 1 and "the tokenizer has a token 299 and the model 264 tokens: they do not belong together" in err
    path.write_bytes(trained(["ab", "ba"], "a", vocab_size=264))
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": False}))
    first = Image.load(convert(sterna, folder, tmp_path))
    assert Model(tmp_path / "m.sterna").vocabulary.start == [0]
    (folder / "tokenizer_config.json").unlink()
    assert first.source == Image.load(convert(sterna, folder, tmp_path)).source
    assert Model(tmp_path / "m.sterna").vocabulary.start == [1]
    assert sterna("generate", "-m", tmp_path / "m.sterna", "-p", "the cat", "-n", 3, "--device", "golden")[0] == 0
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    code, _, err = sterna("convert", folder, "-o", tmp_path / "m.sterna")
    assert code == 1 and f"{path}: reading it takes the sentencepiece package: install it with " in err
    assert "[sentencepiece]" in err


def convert(sterna, folder, place):
    assert sterna("convert", folder, "-o", place / "m.sterna", "--no-answer")[0] == 0
    return place / "m.sterna"
