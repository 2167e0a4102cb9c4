"""Text of a model: prompts to token ids, and token ids to text as they arrive."""

import codecs

from sterna.host.model.encoding import Encoder, TextError, byte_alphabet, shown, token_byte
from sterna.host.model.tokenizer_file import TokenizerFileError, check_tokenizer


class Vocabulary:
    """A tokenizer.json with the two directions that a run needs.

    Parameters
    ----------
    text : str
        Content of tokenizer.json.
    end : int
        Id that ends a text. It also starts one where the tokenizer adds no start mark of its own.
    size : int, optional
        Tokens of the model; a text with an id beyond them is refused.

    Attributes
    ----------
    controls : dict of int to str
        Texts of the added tokens that the tokenizer calls special, by their ids.

    Raises
    ------
    TextError
        The content is not a tokenizer, or uses neither byte-level BPE nor bytes as ``<0x41>``.
    """

    def __init__(self, text, end, size=None):
        try:
            file = check_tokenizer(text)
        except TokenizerFileError as error:
            raise TextError(f"the tokenizer cannot be read: {error}") from None
        self.byte_level = "ByteLevel" in file.decoders
        if not self.byte_level and "ByteFallback" not in file.decoders:
            raise TextError("the tokenizer is neither byte-level BPE nor BPE with byte fallback: "
                            "use a model with one of these")
        self._encoder = Encoder(file)
        self.tokenizer = self._encoder.tokenizer
        self.end, self.start, self.size = end, file.start or [end], size
        self.largest_piece = max(file.model["vocab"].values())
        self.largest = max(self.largest_piece, -1, *self._encoder.added)
        special = {token["content"] for token in file.added if token["special"]}
        self.controls = {k: text for k, text in self._encoder.added.items() if text in special}
        self._bytes = {}
        self._alphabet = byte_alphabet()
        self._replaced = [] if self.byte_level else file.replaced or [("\u2581", " ")]

    def __len__(self):
        return self.tokenizer.get_vocab_size()

    def encode(self, text, start=True):
        """Token ids (list of int) of a text, as the tokenizers package gives them.

        Parameters
        ----------
        text : str
        start : bool
            Put the start mark in front. False: the text goes on with another one, so a space of the
            tokenizer's own is not put in front either.

        Raises
        ------
        TextError
            The text holds half of a surrogate pair, characters that the tokenizer has no token for
            or takes out, or a token that the model does not have. What the tokenizer writes in
            another form (lower case, NFC) and white space that only parts words is no loss.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TextError(f"the text holds U+{ord(text[error.start]):04X} at character {error.start}, which is no "
                            "character: give valid UTF-8") from None
        ids = self._encoder.ids(text)
        written = b"".join(map(self.token_bytes, ids))
        if written not in (text.encode(), b" " + text.encode()):
            self._check(text, written)
        ids = [*self.start, *ids] if start else list(self._encoder.ids_behind(text))
        self._check_size(ids)
        return ids

    def _check(self, text, written):
        for mark in (old for old, new in self._replaced if new.isspace()):
            if mark in text:
                raise TextError(f"the tokenizer writes a space for {shown(mark)}: leave it out")
            if mark.encode() in written:  # as bytes, which nothing turns into a space again
                raise TextError(f"the tokenizer has no token for {shown(' ')}: leave it out")
        self._encoder.check_whole(text)

    def _check_size(self, ids):
        bad = [k for k in ids if self.size is not None and k >= self.size]
        if bad:
            name = self.tokenizer.id_to_token(bad[0])
            raise TextError(f"the tokenizer's token {bad[0]}, {name!r}, is not among the model's "
                            f"{self.size}: leave it out")

    def token_bytes(self, token):
        """The bytes that a token id writes; b"" for an id that the tokenizer does not have."""
        if token not in self._bytes:
            self._bytes[token] = self._spell(token)
        return self._bytes[token]

    def _spell(self, token):
        piece = self.tokenizer.id_to_token(token) if 0 <= token <= self.largest else None
        if piece is None:
            return b""
        if self.byte_level:
            known = token not in self._encoder.added and all(c in self._alphabet for c in piece)
            return bytes(self._alphabet[c] for c in piece) if known else piece.encode()
        if (byte := token_byte(piece)) is not None:
            return byte
        for old, new in self._replaced:
            piece = piece.replace(old, new)
        return piece.encode()


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
        keep = max((n for stop in self.stops for n in range(1, min(len(stop), len(text) + 1))
                    if text.endswith(stop[:n])), default=0)
        self._held = text[len(text) - keep:]
        return text[:len(text) - keep]
