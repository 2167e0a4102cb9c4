"""Stories to token rows: tokenizer training, encoding, packing and per-story evaluation batches."""

import lzma
from pathlib import Path

import numpy as np
import tokenizers

from sterna.sim.golden.errors import SternaError

END_OF_TEXT = "<|endoftext|>"  # id 0: starts every story and ends it


class StoriesError(SternaError, ValueError):
    """A text file that cannot be read; one line."""


def text_of(data):
    """The text (str) of a file's bytes, for every file of text that is read.

    UTF-8, without a byte order mark in front, with ``\\n`` where the file has ``\\r\\n``. No other
    character ends a line: texts hold form feeds, U+0085 and U+2028 as they hold letters.

    Raises
    ------
    UnicodeDecodeError
    """
    return data.decode().removeprefix("\ufeff").replace("\r\n", "\n")


def lines_of(text):
    """The lines (list of str) of a text that are not blank."""
    return [line for line in text.split("\n") if line.strip()]


def read_stories(path):
    """The stories of a text file (plain or .xz), which a line with the end-of-text mark separates.

    Line ends around a story do not count, and white space alone is no story.

    Raises
    ------
    StoriesError
    """
    path = Path(path)
    try:
        with lzma.open(path) if path.suffix == ".xz" else path.open("rb") as file:
            text = text_of(file.read())
    except UnicodeDecodeError as error:
        raise StoriesError(f"{path} is not UTF-8 (byte {error.start}): convert it, for instance with iconv") from None
    except OSError as error:
        raise StoriesError(f"cannot read {path}: {error.strerror or error}") from None
    except (lzma.LZMAError, EOFError) as error:
        raise StoriesError(f"{path} is no whole xz file: {error}") from None
    return [part.strip("\n") for part in text.split(END_OF_TEXT) if part.strip()]


def train_tokenizer(stories, vocab_size):
    """A byte-level BPE of vocab_size entries; id 0 is the end-of-text mark and any byte can be written."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END_OF_TEXT], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(stories, trainer)
    return tokenizer


def encode(tokenizer, stories):
    """One int32 array per story, from its start mark to its end mark."""
    return [np.array([0, *e.ids, 0], np.int32) for e in tokenizer.encode_batch(stories, add_special_tokens=False)]


def pack_rows(texts, length, rng):
    """Shuffle the texts into rows of length + 1 tokens, first fit; returns inputs, targets (-1: none), keep.

    A text never crosses a row (one longer than a row is cut), so every text trains from its own empty state.
    """
    rows, room = [], []
    open_rows = []
    for k in rng.permutation(len(texts)):
        ids = texts[k][:length + 1]
        for slot in open_rows:
            if room[slot] >= len(ids) - 1:
                break
        else:
            slot = len(rows)
            rows.append([])
            room.append(length)
            open_rows.append(slot)
            if len(open_rows) > 24:
                open_rows.pop(0)
        rows[slot].append(ids)
        room[slot] -= len(ids) - 1
        if room[slot] < 24 and slot in open_rows:
            open_rows.remove(slot)
    inputs = np.zeros((len(rows), length), np.int32)
    targets = np.full((len(rows), length), -1, np.int32)
    keep = np.zeros((len(rows), length), bool)
    for r, members in enumerate(rows):
        at = 0
        for ids in members:
            end = at + len(ids) - 1
            inputs[r, at:end] = ids[:-1]
            targets[r, at:end] = ids[1:]
            keep[r, at + 1:end] = True
            at = end
    order = rng.permutation(len(rows))
    return inputs[order], targets[order], keep[order]
