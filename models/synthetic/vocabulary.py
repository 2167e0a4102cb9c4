"""A tokenizer of the kind of Llama and Mistral for any number of tokens, trained on the stories of models/data.

<unk> <s> </s> come first, then the 256 bytes that write what has no token of its own, then the merged pieces in the
order of their merges, then the single characters. A space is U+2581, and one stands in front of every text.
"""

import json
from itertools import islice, product
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from sterna.models.data import read_stories
from sterna.sim.golden.errors import SternaError

UNKNOWN, START, END = "<unk>", "<s>", "</s>"
MARKS = (UNKNOWN, START, END)
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
SPACE = "\u2581"
LEAST = len(MARKS) + len(BYTES) + 1  # the space, which has no bytes of its own
STORIES = Path(__file__).resolve().parents[1] / "data" / "tinystories-train.txt.xz"
STORIES_PER_TOKEN = 1  # more than that make hardly other pieces
PRINTABLE = [chr(code) for code in range(0x20, 0x7F)]


class VocabularyError(SternaError, ValueError):
    """A number of tokens that no tokenizer of this kind has, or no text to train it on; one line."""


def train(texts, size):
    """The pieces and merges of a BPE of at most ``size`` pieces, bytes and marks not among them.

    Returns
    -------
    characters : list of str
        The space among them.
    merges : list of (str, str)
    """
    # Pieces do not cross a space, a line's end or two digits, as sentencepiece has it.
    parts = [pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always"),
             pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Split("\n", "isolated")]
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, min_frequency=0, show_progress=False, initial_alphabet=[SPACE, *PRINTABLE],
        limit_alphabet=size))
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    made = {first + second for first, second in merges}
    characters = [piece for piece in sorted(model["vocab"], key=model["vocab"].get) if piece not in made]
    if SPACE not in characters:  # the alphabet was cut before it
        characters[-1] = SPACE
        merges = []
    return characters, merges


def fill(characters, merges, size):
    """More merges, until there are ``size`` pieces: of the shortest pairs of pieces that make a new one.

    No text that was trained on has them.
    """
    pieces = dict.fromkeys([*characters, *(first + second for first, second in merges)])
    missing, taken = size - len(pieces), {*pieces, *MARKS, *BYTES}
    made = {}
    while len(made) < missing:
        every = [*pieces, *made]
        pairs = ((first, second) for first, second in product(every, every)
                 if first + second not in taken and SPACE not in second)
        before = len(made)
        for first, second in islice(pairs, (missing - before) * 2):
            if len(made) < missing and first + second not in made:
                made[first + second] = (first, second)
        if len(made) == before:
            raise VocabularyError(f"{size} pieces cannot be made of {len(characters)} characters: use fewer tokens")
    return [*merges, *made.values()]


def make_tokenizer(size, texts=None):
    """The texts of the files of a tokenizer of ``size`` tokens.

    Parameters
    ----------
    size : int
        Tokens, at least ``LEAST``.
    texts : sequence of str, optional
        To train on; the stories of models/data.

    Returns
    -------
    dict of str to str
        tokenizer.json and tokenizer_config.json.

    Raises
    ------
    VocabularyError
    StoriesError
        The stories cannot be read.
    """
    if size < LEAST:
        raise VocabularyError(f"a vocabulary of {size} tokens: use at least {LEAST}, for 256 bytes, the space, "
                              f"{', '.join(MARKS)}")
    if texts is None:
        texts = read_stories(STORIES)[:size * STORIES_PER_TOKEN]
    room = size - len(MARKS) - len(BYTES)
    characters, merges = train(texts, room)
    merges = fill(characters, merges, room)
    # A piece that two merges make counts once.
    pieces = dict.fromkeys([*MARKS, *BYTES, *(first + second for first, second in merges), *characters])
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return {"tokenizer.json": _json(_tokenizer(vocab, merges)), "tokenizer_config.json": _json(_settings())}


def _json(value):
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _mark(content):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True}


def _tokenizer(vocab, merges):
    start = {"SpecialToken": {"id": START, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": number} | _mark(content) for number, content in enumerate(MARKS)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [start, first],
            "pair": [start, first, {"SpecialToken": {"id": START, "type_id": 1}}, second],
            "special_tokens": {START: {"id": START, "ids": [MARKS.index(START)], "tokens": [START]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": UNKNOWN, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": [list(merge) for merge in merges]}}


def _settings():
    return {"add_bos_token": True, "add_eos_token": False,
            "added_tokens_decoder": {str(number): _mark(content) for number, content in enumerate(MARKS)},
            "bos_token": START, "clean_up_tokenization_spaces": False, "eos_token": END, "legacy": True,
            "model_max_length": 2048, "pad_token": None, "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizer", "unk_token": UNKNOWN, "use_default_system_prompt": False}
