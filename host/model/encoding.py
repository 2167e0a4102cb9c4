"""Text to token ids by the tokenizers package, with nothing lost on the way.

The package drops characters without a word where a tokenizer lacks them, or writes one unknown
token for all of them. Its ids are therefore compared with those of a second tokenizer, which takes
texts apart in the same way and whose model writes every byte that comes to it.
"""

import re
import unicodedata
from functools import cached_property

import tokenizers

from sterna.host.errors import HostError

_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


class TextError(HostError):
    """Text that the tokenizer cannot hold, or a tokenizer that cannot be read."""


def call_package(what, function, *arguments, **options):
    """The result of a function of the tokenizers package; TextError, whatever it raises.

    It raises bare Exceptions and, in bugs, worse.
    """
    try:
        return function(*arguments, **options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise TextError(f"the tokenizer {what}: {' '.join(str(error).split())[:200]}") from None


def byte_alphabet():
    """Map of the characters that byte-level BPE writes for the 256 bytes.

    Printable bytes of Latin-1 stand for themselves, the others take the code points from 256
    upwards in their order.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(plain)]
    alphabet = {chr(byte): byte for byte in plain}
    return alphabet | {chr(256 + k): byte for k, byte in enumerate(moved)}


def token_byte(piece):
    """The byte (bytes) that a piece such as ``<0x41>`` stands for, None for any other piece."""
    byte = _BYTE.fullmatch(piece)
    return bytes.fromhex(byte[1]) if byte else None


def is_blank(character):
    """Whether a character is white space, which parts words: U+2581 stands for it too."""
    return character == "\u2581" or character.isspace() and not "\x1c" <= character <= "\x1f"


def shown(text):
    """A text in a message: as Python writes it, and its code points."""
    return f"{text!r} ({' '.join(f'U+{ord(c):04X}' for c in text)})"


class Encoder:
    """Token ids of texts, and a refusal of every text that would lose something.

    Parameters
    ----------
    file : TokenizerFile
    """

    def __init__(self, file):
        self._file = file
        self.tokenizer = self._made()
        self._alphabet = byte_alphabet()

    def _made(self, **options):
        text = self._file.json(**options)
        return call_package("cannot be read", tokenizers.Tokenizer.from_str, text)

    @cached_property
    def _pairs(self):
        """Pairs (tokenizer, the same with a model that loses nothing).

        The second pair, where there is one, puts nothing in front of a text.
        """
        out = [(self.tokenizer, self._made(whole=True))]
        if self._file.has_front:
            out.append((self._behind, self._made(whole=True, front=False)))
        return out

    @cached_property
    def _behind(self):
        """The tokenizer that puts nothing in front of a text."""
        return self._made(front=False)

    @cached_property
    def added(self):
        """{id: content} of the added tokens, with the ids that the package gives them."""
        return {k: token.content for k, token in self.tokenizer.get_added_tokens_decoder().items()}

    @staticmethod
    def _encoded(tokenizer, text):
        return call_package("fails on this text", tokenizer.encode, text, add_special_tokens=False)

    def ids(self, text):
        """Token ids (list of int) of a text, those of the tokenizers package."""
        return self._encoded(self.tokenizer, text).ids

    def ids_behind(self, text):
        """The ids of a text that goes on with another one: its first word has no space in front.

        All behind the first word, or behind the first place where both ways of writing begin a
        word, is written as ever.
        """
        whole = self._encoded(self.tokenizer, text)
        if not self._file.has_front:
            return whole.ids
        first = self._encoded(self._behind, text)
        ends, begins = self._word_starts(first), self._word_starts(whole)
        at = min(ends.keys() & begins.keys(), default=None)
        return first.ids if at is None else first.ids[:ends[at]] + whole.ids[begins[at]:]

    @staticmethod
    def _word_starts(encoding):
        """{place in the text: place among the ids} of all words but the first."""
        words = encoding.word_ids
        return {encoding.offsets[k][0]: k for k in range(1, len(words)) if words[k] != words[k - 1]}

    def check_whole(self, text):
        """TextError, which names a character, if the ids of a text do not hold all of it."""
        found = [self._unwritten(text, *pair) for pair in self._pairs]
        # A tokenizer that has no token only for what it puts in front loses nothing of the text.
        if all(found):
            raise TextError(f"the tokenizer has no token for {shown(found[-1])}: leave it out")
        if self._file.drops and (dropped := self._dropped(text)):
            raise TextError(f"the tokenizer drops {shown(dropped)} from this text: leave it out")

    def _unwritten(self, text, tokenizer, whole):
        """The first part of a text (str) that a tokenizer's model does not write, or None."""
        got = b"".join(self._raw(tokenizer, self._encoded(tokenizer, text)))
        encoding, at = self._encoded(whole, text), 0
        for piece, (begin, end) in zip(self._raw(whole, encoding), encoding.offsets, strict=True):
            if got[at:at + len(piece)] != piece:
                return self._part(text, begin, end, tokenizer, whole)
            at += len(piece)
        return text[-1:] if at < len(got) else None

    def _part(self, text, begin, end, tokenizer, whole):
        """The first character of ``text[begin:end]`` that is not written when it stands alone.

        All of it, with the marks that belong to it, where each is written alone.
        """
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        part = text[begin:end] or text[:1]
        for character in part:
            got, wanted = (b"".join(self._raw(side, self._encoded(side, character)))
                           for side in (tokenizer, whole))
            if got != wanted:
                return character
        return part

    def _raw(self, tokenizer, encoding):
        """The bytes (list) that stand for each token inside the tokenizer."""
        added = tokenizer.get_added_tokens_decoder()
        known, out = {}, []
        for token, piece in zip(encoding.ids, encoding.tokens, strict=True):
            if token not in known:
                byte = token_byte(piece)
                known[token] = byte if byte is not None else \
                    (added[token].content if token in added else piece).encode()
            out.append(known[token])
        return out

    @cached_property
    def _droppers(self):
        return [self._made(whole=True, front=False, drops=drops) for drops in (True, False)]

    def _dropped(self, text):
        """The first character of a text that a normalizer or pre-tokenizer takes out, or None.

        White space does not count.
        """
        left, kept = ("".join(c for c in self._words_of(side, text) if not is_blank(c))
                      for side in self._droppers)
        if left == kept:
            return None
        at = next((k for k, pair in enumerate(zip(left, kept, strict=False)) if pair[0] != pair[1]),
                  min(len(left), len(kept)))
        bad = kept[at:at + 1]
        if bad in text:
            return bad
        forms = ((c, c.lower() + unicodedata.normalize("NFKD", c)) for c in text)
        return next((c for c, form in forms if bad in form), bad)

    def _words_of(self, tokenizer, text):
        """A text as it comes to the model (str)."""
        data = b"".join(self._raw(tokenizer, self._encoded(tokenizer, text)))
        words = data.decode(errors="replace")
        if any(part["type"] == "ByteLevel" for part in self._file.pre_tokenizers):
            data = b"".join(bytes([self._alphabet[c]]) if c in self._alphabet else c.encode()
                            for c in words)
            words = data.decode(errors="replace")
        return words
