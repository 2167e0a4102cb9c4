"""WordPiece tokens of an encoder, and rows of them."""

from pathlib import Path

import numpy as np
import tokenizers

from sterna.models.data import END_OF_TEXT, lines_of, text_of
from sterna.models.encoder.glue import read_table
from sterna.models.settings import TrainError
from sterna.sim.golden.strictjson import short

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Words:
    """A WordPiece tokenizer with the five special tokens of BERT.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
    pad, unknown, start, end, mask : int
        Ids of the special tokens.
    size : int
        Number of tokens.
    """

    def __init__(self, tokenizer, what):
        self.tokenizer, self.size = tokenizer, tokenizer.get_vocab_size()
        ids = [tokenizer.token_to_id(name) for name in SPECIAL]
        if None in ids:
            raise TrainError(f"{what} has no token {SPECIAL[ids.index(None)]}: an encoder needs {', '.join(SPECIAL)}")
        self.pad, self.unknown, self.start, self.end, self.mask = ids
        tokenizer.no_padding()
        tokenizer.no_truncation()

    @classmethod
    def trained(cls, lines, size):
        """A lower-case WordPiece of at most ``size`` tokens, trained on texts (iterable of str).

        The order of pairs that are as frequent is the trainer's, another in every process: load one to repeat a run.
        """
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = tokenizers.decoders.WordPiece()
        trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=size, show_progress=False,
                                                         special_tokens=list(SPECIAL))
        tokenizer.train_from_iterator(lines, trainer)
        return cls(tokenizer, "the tokenizer")

    @classmethod
    def load(cls, path):
        """That of a tokenizer.json, a vocab.txt, or a folder with one of them; TrainError if there is none."""
        path = Path(path)
        if path.is_dir():
            found = [path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).is_file()]
            if not found:
                raise TrainError(f"{path} holds no tokenizer.json and no vocab.txt: give a folder with one")
            path = found[0]
        try:
            if path.suffix == ".json":
                tokenizer = tokenizers.Tokenizer.from_file(str(path))
            else:
                tokenizer = tokenizers.BertWordPieceTokenizer(str(path), lowercase=True)._tokenizer
        except Exception as error:  # the tokenizers package raises bare Exception
            raise TrainError(f"cannot read the tokenizer {path}: {str(error).splitlines()[0]}") from None
        return cls(tokenizer, str(path))

    def encode(self, texts):
        """Ids (list of list of int) of texts, without special tokens."""
        return [e.ids for e in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def inputs(self, rows, length):
        """One int32 array a row of one text or two: start, text, end[, text, end]; of ``length`` tokens at most."""
        parts = [self.encode(texts) for texts in zip(*rows, strict=True)]
        out = []
        for texts in zip(*parts, strict=True):
            ids = [self.start]
            for text in cut(texts, length - 1 - len(texts)):
                ids += [*text, self.end]
            out.append(np.array(ids, np.int32))
        return out


def cut(texts, room):
    """One list or two, cut to ``room`` members together, the longer one first."""
    if len(texts) == 1:
        return [texts[0][:room]]
    first, second = texts
    count = min(len(first), max(room - len(second), (room + 1) // 2))
    return [first[:count], second[:room - count]]


def read_texts(path):
    """The texts (list of str) of a file or of all .txt and .tsv files below a folder.

    A .tsv is read as a table of GLUE, its texts alone; of any other file every line that is not blank is a text.

    Raises
    ------
    TrainError
        A file cannot be read, or there is none.
    """
    path = Path(path)
    files = sorted(p for p in path.rglob("*") if p.suffix in (".txt", ".tsv")) if path.is_dir() else [path]
    out = []
    for file in files:
        if file.suffix == ".tsv":
            out += [text for texts in read_table(file).texts for text in texts]
            continue
        try:
            out += [line.strip() for line in lines_of(text_of(file.read_bytes())) if line.strip() != END_OF_TEXT]
        except UnicodeDecodeError as error:
            raise TrainError(f"{file} is not UTF-8 (byte {error.start}): convert it, for instance with iconv") \
                from None
        except OSError as error:
            raise TrainError(f"cannot read {file}: {error.strerror}") from None
    if not out:
        raise TrainError(f"{short(str(path))} holds no text: give a file, or a folder with .txt or .tsv files")
    return out


def fill_rows(words, texts, length):
    """[N, length] int32: all texts in one line, an end mark behind each, cut into rows behind a start mark."""
    ids = np.concatenate([np.array([*part, words.end], np.int32) for part in words.encode(texts)])
    count = len(ids) // (length - 1)
    rows = ids[:count * (length - 1)].reshape(count, length - 1)
    return np.concatenate([np.full((count, 1), words.start, np.int32), rows], 1)
