"""Token ids of many kinds of tokenizers: those of the tokenizers package, with nothing lost."""

import ast
import json
import os
import re

import pytest
import tokenizers
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from sterna.host.model.text import TextError, TextStream, Vocabulary

SEED = int(os.environ.get("STERNA_SEED", "1"))
BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
END, START, UNKNOWN = "<|end|>", "<s>", "<unk>"
MARKS = ["<m>", "<pad>\u2581x"]
NORMALIZERS = {
    "none": None, "lower": [{"type": "Lowercase"}], "nfkd": [{"type": "NFKD"}],
    "nfc": [{"type": "NFC"}],
    "strip": [{"type": "Strip", "strip_left": True, "strip_right": True}],
    "accents": [{"type": "NFD"}, {"type": "StripAccents"}],
    "replace": [{"type": "Replace", "pattern": {"String": "q"}, "content": ""},
                {"type": "Lowercase"}],
    "swap": [{"type": "Replace", "pattern": {"String": "ab"}, "content": "xyz"}]}
PARTED = {
    "none": [], "split": [{"type": "WhitespaceSplit"}], "words": [{"type": "Whitespace"}],
    "digits": [{"type": "Digits", "individual_digits": True}],
    "removed": [{"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Removed",
                 "invert": False}],
    "points": [{"type": "Punctuation", "behavior": "Removed"}]}
# Parts that take white space out, and characters that parts take out.
BLANK_ENDS, BLANKS = ("strip",), ("split", "words", "removed")


def sequence(parts, name):
    return {"type": "Sequence", name: parts} if parts else None


def tokenizer_file(*, byte_level, without=(), normalizer="none", parted="none", front=None,
                   unknown=False, bytes_too=True, flags=None, post=None):
    """tokenizer.json (str) of a small BPE tokenizer.

    ``without`` are pieces of one character that it lacks. ``front`` is "prepend", "always", "first"
    or "never" for a tokenizer of words with U+2581, anything true or false for one of bytes.
    ``flags`` are those of the added tokens.
    """
    normalizers, pre_tokenizers = [*(NORMALIZERS[normalizer] or [])], [*PARTED[parted]]
    if byte_level:
        pieces = [END, START, UNKNOWN, *(c for c in BYTES if c not in without), "aa"]
        pre_tokenizers.append({"type": "ByteLevel", "add_prefix_space": bool(front),
                               "trim_offsets": True, "use_regex": parted == "none"})
        decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                   "use_regex": True}
    else:
        letters = [c for c in "\u2581abexyzAB.\u00e97\n" if c not in without]
        bytes_of = [f"<0x{k:02X}>" for k in range(256) if bytes_too]
        pieces = [END, START, UNKNOWN, *bytes_of, *letters, "aa"]
        if front in (None, "prepend"):
            normalizers += [{"type": "Prepend", "prepend": "\u2581"}] if front else []
            normalizers.append({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})
        else:
            pre_tokenizers.append({"type": "Metaspace", "replacement": "\u2581",
                                   "prepend_scheme": front, "split": True})
        decoder = sequence([{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                            {"type": "ByteFallback"}, {"type": "Fuse"}], "decoders")
    vocab = {p: k for k, p in enumerate(pieces)}
    merges = [["a", "a"]] if "a" in vocab else []
    added = [{"id": vocab.get(content, len(vocab) + k), "content": content, "single_word": False,
              "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             | (flags if content in MARKS and flags else {})
             for k, content in enumerate([*MARKS, END, UNKNOWN])]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": sequence(normalizers, "normalizers"),
        "pre_tokenizer": sequence(pre_tokenizers, "pretokenizers"), "post_processor": post,
        "decoder": decoder,
        "model": {"type": "BPE", "dropout": None, "unk_token": UNKNOWN if unknown else None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "vocab": vocab,
                  "merges": merges,
                  "fuse_unk": True, "byte_fallback": not byte_level, "ignore_merges": False}})


KINDS = st.fixed_dictionaries({
    "byte_level": st.booleans(),
    "without": st.sets(st.sampled_from("a\u00e9\u00a9\u0120\u2581e"), max_size=2),
    "normalizer": st.sampled_from(sorted(NORMALIZERS)), "parted": st.sampled_from(sorted(PARTED)),
    "front": st.sampled_from([None, "prepend", "always", "first", "never"]),
    "unknown": st.booleans(), "bytes_too": st.booleans(),
    "flags": st.fixed_dictionaries({"lstrip": st.booleans(), "rstrip": st.booleans()})}).filter(
        # What is put in front and has no token is a test of its own.
        lambda kind: not kind["front"] or not kind["without"] & {"\u0120", "\u2581"})
TEXTS = st.lists(st.one_of(
    st.sampled_from(["a", "aa", "ab", " ", "  ", "b", "e", "\u00e9", "e\u0301", "A", "q", ".", "7",
                     "\n", "\u2581", "\ufb01", "\u4e2d", UNKNOWN, END, MARKS[0], MARKS[1]]),
    st.text(max_size=3)), min_size=1, max_size=8).map("".join)


def without_blanks(text):
    return "".join(c for c in text if not (c.isspace() or c == "\u2581"))


def wanted(tokenizer, text, keep=False):
    """A text as the normalizer writes it, added tokens left alone.

    ``keep``: without the parts that drop something.
    """
    names = "|".join(map(re.escape, [*MARKS, END, UNKNOWN]))
    parts = json.loads(tokenizer)["normalizer"]
    parts = parts["normalizers"] if parts else []
    if keep:
        parts = [p for p in parts if p["type"] != "StripAccents" and p.get("content") != ""]
    made = tokenizers.Tokenizer.from_str(json.dumps(json.loads(tokenizer) | {
        "normalizer": sequence([p for p in parts if p["type"] != "Prepend"], "normalizers")}))
    return "".join(piece if k % 2 or not made.normalizer else made.normalizer.normalize_str(piece)
                   for k, piece in enumerate(re.split(f"({names})", text)))


@seed(SEED)
@settings(max_examples=250, deadline=None)
@given(KINDS, TEXTS)
def test_ids_are_the_packages_or_a_character_is_named(kind, text):
    content = tokenizer_file(**kind)
    vocabulary, package = Vocabulary(content, end=0), tokenizers.Tokenizer.from_str(content)
    ids = package.encode(text, add_special_tokens=False).ids
    back = package.decode(ids, skip_special_tokens=False)
    normal, whole_normal = ((one if kind["byte_level"] else one.replace("\u2581", " "))
                            for one in (wanted(content, text), wanted(content, text, keep=True)))
    # Whether no white space is taken out, or put in but for one space in front.
    exact = kind["normalizer"] not in BLANK_ENDS and kind["parted"] not in BLANKS \
        and not any(kind["flags"].values()) \
        and (not kind["front"] or kind["parted"] == "none" and "<" not in text)

    def same(a, b):
        return a in (b, " " + b) if exact else without_blanks(a) == without_blanks(b)

    whole = back == text or \
        same(back, normal) and without_blanks(normal) == without_blanks(whole_normal)
    # Written as a space:
    marked = "\u2581" in text and not kind["byte_level"] and back != text
    try:
        found = vocabulary.encode(text)
    except TextError as error:
        named = re.search(r"(?:for|drops) (['\"].+['\"]) \(U\+[0-9A-F]{4}", str(error))
        blank = named and ast.literal_eval(named[1]).isspace()
        assert named and (marked or not whole or not exact and blank), (content, back, error)
        return
    assert found == [0, *ids] and whole and not marked
    stream = TextStream(vocabulary)
    shown = "".join(stream.push(k) for k in ids) + stream.finish()
    assert shown == text or same(shown, normal)


def made(**options):
    content = tokenizer_file(**options)
    return Vocabulary(content, end=0), tokenizers.Tokenizer.from_str(content)


@pytest.mark.parametrize("options, text, named", [
    ({"byte_level": False, "bytes_too": False}, "a q", r"no token for 'q' \(U\+0071\)"),
    ({"byte_level": False, "bytes_too": False, "unknown": True}, "a <unk> q",
     r"no token for 'q' \(U\+0071\)"),
    ({"byte_level": True, "unknown": True, "without": "z"}, "<unk> z",
     r"no token for 'z' \(U\+007A\)"),
    ({"byte_level": True, "without": "z", "normalizer": "lower"}, "abcZ",
     r"no token for 'Z' \(U\+005A\)"),
    ({"byte_level": True, "without": "\u00a9", "normalizer": "nfc"}, "ae\u0301",
     r"no token for 'e\u0301' \(U\+0065 U\+0301\)"),
    ({"byte_level": True, "normalizer": "accents"}, "caf\u00e9", r"drops '\u00e9' \(U\+00E9\)"),
    ({"byte_level": True, "normalizer": "replace"}, "a Queen, a quay", r"drops 'q' \(U\+0071\)"),
    ({"byte_level": True, "parted": "points"}, "a.b", r"drops '\.' \(U\+002E\)"),
    ({"byte_level": True, "without": "\u0120"}, "a b", r"no token for ' ' \(U\+0020\)"),
    ({"byte_level": False, "bytes_too": False, "without": "\u2581"}, "a b",
     r"no token for ' ' \(U\+0020\)"),
    ({"byte_level": False, "without": "\u2581"}, "a b", r"no token for ' ' \(U\+0020\)"),
    ({"byte_level": False}, "a\u2581b", r"writes a space for '\u2581' \(U\+2581\)"),
])
def test_lost_characters_are_named(options, text, named):
    vocabulary, _ = made(**options)
    with pytest.raises(TextError, match=named):
        vocabulary.encode(text)


@pytest.mark.parametrize("options, text", [
    ({"byte_level": True, "front": True}, "a b"),
    ({"byte_level": True, "normalizer": "lower"}, "One A"),
    ({"byte_level": True, "normalizer": "nfkd"}, "\ufb01n caf\u00e9"),
    ({"byte_level": True, "normalizer": "strip"}, " a b\n"),
    ({"byte_level": True, "normalizer": "swap"}, "abq"),
    ({"byte_level": True, "parted": "split"}, "a  b c"),
    ({"byte_level": False, "parted": "split", "front": "always"}, "a  b c"),
    ({"byte_level": False, "front": "prepend"}, "a <unk> b <|end|>q"),
    ({"byte_level": False, "front": "first"}, " a <m> b"),
    ({"byte_level": True, "flags": {"lstrip": True, "rstrip": True}}, "a  <m>  b"),
    ({"byte_level": False, "front": "always", "flags": {"lstrip": True, "rstrip": True}},
     "a  <m>  b"),
    ({"byte_level": False, "front": "prepend", "without": "\u2581", "bytes_too": False,
      "unknown": True}, "ab"),
])
def test_valid_texts_have_the_ids_of_the_package(options, text):
    vocabulary, package = made(**options)
    assert vocabulary.encode(text) == [0, *package.encode(text, add_special_tokens=False).ids]


G, U = "\u0120", "\u2581"


@pytest.mark.parametrize("options, text, pieces", [
    ({"byte_level": True, "front": True}, "aa b", ["aa", G, "b"]),
    ({"byte_level": True, "front": True}, " aa", [G, "aa"]),
    ({"byte_level": True, "front": True}, "'s a", ["'", "s", G, "a"]),
    ({"byte_level": True, "front": True}, "a<m>b", ["a", "<m>", G, "b"]),
    ({"byte_level": True, "front": True, "parted": "digits"}, "a7b", ["a", G, "7", G, "b"]),
    ({"byte_level": False, "front": "prepend"}, "aa b", ["aa", U, "b"]),
    ({"byte_level": False, "front": "prepend"}, "a<m>b", ["a", "<m>", U, "b"]),
    ({"byte_level": False, "front": "always"}, "a b", ["a", U, "b"]),
    ({"byte_level": False, "front": "always"}, " a", [U, "a"]),
    ({"byte_level": False, "front": "always"}, "<m>b", ["<m>", U, "b"]),
    ({"byte_level": False, "front": "first"}, "a<m>b", ["a", "<m>", "b"]),
    ({"byte_level": False, "front": "always", "parted": "split"}, "aa b", ["aa", U, "b"]),
])
def test_a_text_that_goes_on_gets_no_space_in_front(options, text, pieces):
    vocabulary, package = made(**options)
    assert list(map(package.id_to_token, vocabulary.encode(text, start=False))) == pieces


@pytest.mark.parametrize("post, start", [
    ({"type": "RobertaProcessing", "sep": [END, 0], "cls": [START, 1], "trim_offsets": True,
      "add_prefix_space": True}, 1),
    ({"type": "BertProcessing", "sep": [END, 0], "cls": [START, 1]}, 1),
    ({"type": "TemplateProcessing", "single": [
        {"SpecialToken": {"id": START, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": END, "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {name: {"id": name, "ids": [k], "tokens": [name]}
                         for k, name in enumerate((END, START))}}, 1),
    ({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "BertProcessing", "sep": [END, 0], "cls": [UNKNOWN, 2]}]}, 2)])
def test_marks_of_every_post_processor(post, start):
    vocabulary, package = made(byte_level=True, post=post)
    assert [*vocabulary.encode("ab a"), 0] == package.encode("ab a").ids
    assert vocabulary.start == [start]


@pytest.mark.parametrize("post, message", [
    ({"type": "Special"}, "post_processor 'Special' is not supported: only TemplateProcessing"),
    ({"type": "BertProcessing", "sep": [END, 0], "cls": [START, -1]},
     r"BertProcessing: cls is \['<s>', -1\]"),
    ({"type": "RobertaProcessing", "sep": [END, 0]}, "RobertaProcessing: cls is None")])
def test_other_post_processors_are_refused(post, message):
    with pytest.raises(TextError, match=message):
        Vocabulary(tokenizer_file(byte_level=True, post=post), end=0)


def test_added_tokens_print_what_the_package_prints():
    for byte_level in (False, True):
        vocabulary, package = made(byte_level=byte_level)
        for token in package.get_added_tokens_decoder():
            printed = package.decode([token], skip_special_tokens=False)
            assert vocabulary.token_bytes(token).decode() == printed
    assert b"<pad> x" in [made(byte_level=False)[0].token_bytes(k) for k in range(300)]


def test_added_token_beyond_the_model_is_refused_where_it_is_used():
    content = tokenizer_file(byte_level=True)
    size = len(json.loads(content)["model"]["vocab"])
    vocabulary = Vocabulary(content, 0, size)
    assert vocabulary.encode("ab") and vocabulary.encode(UNKNOWN)
    with pytest.raises(TextError, match=f"token {size}, '<m>', is not among the model's {size}: "):
        vocabulary.encode("a<m>")
