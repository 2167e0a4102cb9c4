"""Streaming of text: whole characters, stop strings over token boundaries, text that cannot be held."""

import json
import os

import pytest
import tokenizers
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from sterna.host.model.text import TextError, TextStream, Vocabulary

SEED = int(os.environ.get("STERNA_SEED", "1"))
BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer(alphabet=BYTES, merges=()):
    """Byte-level BPE as tokenizer.json, with id 0 as the end mark and the given merges."""
    pieces = ["<|end|>", *alphabet, *(a + b for a, b in merges)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({p: k for k, p in enumerate(pieces)}, list(merges)))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer.to_str()


def fallback_tokenizer():
    """A tokenizer in the manner of Mistral: spaces as U+2581, unknown characters as bytes, a start mark."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{k:02X}>" for k in range(256)), "\u2581", "a", "b"]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(
        {p: k for k, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = tokenizers.decoders.Sequence([
        tokenizers.decoders.Replace("\u2581", " "), tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer.to_str()


VOCABULARY = Vocabulary(byte_tokenizer(), end=0)


@seed(SEED)
@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40))
def test_pieces_are_whole_characters_and_add_up(text):
    stream = TextStream(VOCABULARY)
    pieces = [stream.push(k) for k in VOCABULARY.encode(text, start=False)]
    assert "".join(pieces) + stream.finish() == text
    # One token is one byte here: a character may come out only with its last byte.
    assert [len(p) for p in pieces] == [n for c in text for n in [0] * (len(c.encode()) - 1) + [1]]


@seed(SEED)
@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="abé", max_size=30), st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3))
def test_stop_strings_cut_at_the_earliest(text, stops):
    stream = TextStream(VOCABULARY, stops)
    shown = ""
    for token in VOCABULARY.encode(text, start=False):
        shown += stream.push(token)
        assert not any(stop in shown for stop in stops)
        if stream.stopped:
            break
    shown += stream.finish()
    found = any(stop in text for stop in stops)
    assert stream.stopped == found
    if found:
        # As if the text were read a character at a time until some stop string is complete.
        whole = next(text[:n] for n in range(len(text) + 1) if any(s in text[:n] for s in stops))
        assert shown == whole[:min(whole.find(s) for s in stops if s in whole)]
    else:
        assert shown == text


def test_stop_string_inside_one_token_keeps_what_stands_before():
    vocabulary = Vocabulary(byte_tokenizer(merges=[("a", "b"), ("ab", "c")]), end=0)
    assert len(vocabulary.encode("abc", start=False)) == 1
    stream = TextStream(vocabulary, ["b"])
    assert stream.push(vocabulary.encode("abc", start=False)[0]) == "a"
    assert stream.stopped and stream.finish() == ""


def test_held_back_text_comes_out_at_the_end():
    stream = TextStream(VOCABULARY, ["abcd"])
    assert "".join(stream.push(k) for k in VOCABULARY.encode("xabc", start=False)) == "x"
    assert stream.finish() == "abc"


def test_bytes_that_are_no_utf8_become_replacements():
    stream = TextStream(VOCABULARY)
    by_byte = {VOCABULARY.token_bytes(k): k for k in range(1, 257)}
    assert stream.push(by_byte[b"\x80"]) == "\ufffd"
    assert stream.push(by_byte[b"\xe2"]) == ""
    assert stream.push(by_byte[b"a"]) == "\ufffda"
    assert stream.push(by_byte[b"\xe2"]) == ""
    assert stream.finish() == "\ufffd"


def test_start_mark_is_the_end_mark_where_the_tokenizer_adds_none():
    assert VOCABULARY.encode("a")[0] == 0
    assert Vocabulary(fallback_tokenizer(), end=2).encode("ab")[0] == 1


def test_byte_fallback_streams_whole_characters():
    vocabulary = Vocabulary(fallback_tokenizer(), end=2)
    stream = TextStream(vocabulary)
    pieces = [stream.push(k) for k in vocabulary.encode("a é", start=False)]
    assert pieces == ["a", " ", "", "é"]


def test_token_beyond_the_vocabulary_writes_nothing():
    assert VOCABULARY.token_bytes(100_000) == b""


def test_lone_surrogate_is_refused():
    with pytest.raises(TextError, match=r"U\+D800 at character 1"):
        VOCABULARY.encode("a\ud800")


def test_character_without_token_is_refused():
    vocabulary = Vocabulary(byte_tokenizer(alphabet=[b for b in BYTES if b != "z"]), end=0)
    assert vocabulary.encode("abc", start=False)
    with pytest.raises(TextError, match=r"no token for 'z' \(U\+007A\)"):
        vocabulary.encode("abcz")


def test_empty_stop_string_is_refused():
    with pytest.raises(TextError, match="empty stop string"):
        TextStream(VOCABULARY, [""])


def test_other_tokenizers_are_refused():
    content = json.loads(byte_tokenizer())
    content["decoder"] = None
    with pytest.raises(TextError, match="neither byte-level"):
        Vocabulary(json.dumps(content), end=0)
    with pytest.raises(TextError, match="cannot be read"):
        Vocabulary("{}", end=0)
