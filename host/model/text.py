"""Text of a model: prompts to token ids, and token ids to text as they arrive."""

import codecs
import re

import tokenizers

from sterna.host.errors import HostError
from sterna.host.model.tokenizer_file import TokenizerFileError, check_tokenizer

_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


class TextError(HostError):
    """Text that the tokenizer cannot hold, or a tokenizer that cannot be read."""


def _byte_alphabet():
    """Map of the characters that byte-level BPE writes for the 256 bytes.

    Printable bytes of Latin-1 stand for themselves, the others take the code points from 256 upwards in their order.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + k): byte for k, byte in enumerate(moved)}


class Vocabulary:
    """A tokenizer.json with the two directions that a run needs.

    Parameters
    ----------
    text : str
        Content of tokenizer.json.
    end : int
        Id that ends a text. It also starts one where the tokenizer adds no start mark of its own.

    Raises
    ------
    TextError
        The content is not a tokenizer, or uses neither byte-level BPE nor bytes as ``<0x41>``.
    """

    def __init__(self, text, end):
        try:
            file = check_tokenizer(text)
        except TokenizerFileError as error:
            raise TextError(f"the tokenizer cannot be read: {error}") from None
        self.byte_level = "ByteLevel" in file.decoders
        if not self.byte_level and "ByteFallback" not in file.decoders:
            raise TextError("the tokenizer is neither byte-level BPE nor BPE with byte fallback: "
                            "use a model with one of these")
        self.tokenizer = self._call("cannot be read", tokenizers.Tokenizer.from_str, file.text)
        self.end, self.start, self.largest, self._unknown = end, file.start or [end], file.largest, file.unknown
        self._bytes = {}
        self._alphabet = _byte_alphabet()
        self._added = set(self.tokenizer.get_added_tokens_decoder())

    @staticmethod
    def _call(what, function, *arguments, **options):
        """The result of a function of the tokenizers package, which raises bare Exceptions and, in bugs, worse."""
        try:
            return function(*arguments, **options)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise TextError(f"the tokenizer {what}: {' '.join(str(error).split())[:200]}") from None

    def __len__(self):
        return self.tokenizer.get_vocab_size()

    def encode(self, text, start=True):
        """Token ids (list of int) of a text, behind the start mark unless ``start`` is false.

        Raises
        ------
        TextError
            The text holds half of a surrogate pair, or characters that the tokenizer has no token for.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TextError(f"the text holds U+{ord(text[error.start]):04X} at character {error.start}, which is no "
                            "character: give valid UTF-8") from None
        ids = self._call("fails on this text", self.tokenizer.encode, text, add_special_tokens=False).ids
        self._check(text, ids)
        return [*self.start, *ids] if start else list(ids)

    def _check(self, text, ids):
        # A tokenizer without the bytes of a character drops it, or writes its unknown token, without a word.
        unknown = self._unknown
        if self.byte_level and self.tokenizer.normalizer is None:
            lost = b"".join(self.token_bytes(k) for k in ids) != text.encode()
        else:
            lost = unknown is not None and self.tokenizer.token_to_id(unknown) in ids and unknown not in text
        if lost:
            bad = next((c for c in text if not self._holds(c)), text[:1])
            raise TextError(f"the tokenizer has no token for {bad!r} (U+{ord(bad):04X}): leave it out of the prompt")

    def _holds(self, character):
        ids = self._call("fails on this text", self.tokenizer.encode, character, add_special_tokens=False).ids
        return b"".join(self.token_bytes(k) for k in ids).strip() == character.encode().strip()

    def token_bytes(self, token):
        """The bytes that a token id writes; b"" for an id that the tokenizer does not have."""
        if token not in self._bytes:
            self._bytes[token] = self._spell(token)
        return self._bytes[token]

    def _spell(self, token):
        piece = self.tokenizer.id_to_token(token) if 0 <= token <= self.largest else None
        if piece is None:
            return b""
        if token in self._added:
            return piece.encode()
        if self.byte_level:
            known = all(c in self._alphabet for c in piece)
            return bytes(self._alphabet[c] for c in piece) if known else piece.encode()
        if byte := _BYTE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        return piece.replace("\u2581", " ").encode()


class TextStream:
    """Text of a growing sequence of tokens, in pieces that can be shown at once.

    A character whose bytes are spread over tokens is held back until it is whole; bytes that are no UTF-8 become
    U+FFFD. Text that could be the beginning of a stop string is held back until it is or is not, so nothing of a
    stop string is ever given out, wherever the token boundaries fall.

    Parameters
    ----------
    vocabulary : Vocabulary
    stops : sequence of str
        Stop strings; the earliest in the text counts.

    Attributes
    ----------
    stopped : bool
        A stop string has been met: ``push`` and ``finish`` give nothing more.
    """

    def __init__(self, vocabulary, stops=()):
        if "" in stops:
            raise TextError("an empty stop string would end every text: give --stop some characters")
        self.vocabulary, self.stops, self.stopped = vocabulary, tuple(stops), False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def push(self, token):
        """The text (maybe empty) that is certain once ``token`` (int) has arrived."""
        return self._release(self._decoder.decode(self.vocabulary.token_bytes(token)))

    def finish(self):
        """What is still held back, at the end of the run."""
        text = self._release(self._decoder.decode(b"", final=True))
        text, self._held = text + self._held, ""
        return text

    def _release(self, text):
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[:min(found)]
        keep = max((n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        self._held = text[len(text) - keep:]
        return text[:len(text) - keep]
