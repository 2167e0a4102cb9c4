"""tokenizer.json, checked before the tokenizers package sees it.

That package ends the process or takes gigabytes for some files that are no tokenizers: an index out of range panics,
and six bytes of a normalizer ask for 8 GB. So the file is taken apart here, and what the package gets is written anew
from the parts that BPE models of bytes use, each checked for type and range. Parts that a run never needs (decoder,
post-processor, padding, truncation) are read here and not handed on.

The same parts can be written with another model and other borders of a text: what is lost on the
way from a text to its ids shows in the comparison (``sterna.host.model.encoding``).
"""

import json
from dataclasses import dataclass

from sterna.sim.golden import strictjson
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.strictjson import short

MOST_PARTS, MOST_DEPTH = 32, 6  # of a normalizer or pre-tokenizer
MOST_GROWTH = 1024  # bytes that a normalizer may make of one
MOST_TEXT = 1024  # characters of a replacement or pattern
MOST_ID = (1 << 31) - 1
BYTE_MODEL = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
              "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": True,
              "ignore_merges": False, "merges": [],
              "vocab": {f"<0x{byte:02X}>": byte for byte in range(256)}}


class TokenizerFileError(SternaError, ValueError):
    """A tokenizer.json that cannot be used; one line without the file's name."""


@dataclass(frozen=True)
class TokenizerFile:
    """What a checked tokenizer.json says; its parts are dicts, Sequences taken apart.

    Attributes
    ----------
    normalizers, pre_tokenizers : list of dict
    decoders : set of str
        Types of its decoders.
    replaced : list of (str, str)
        What these write for the text of a piece, in their order.
    model : dict
    added : list of dict
        The added tokens.
    start : list of int
        Tokens that it puts in front of every text.
    """

    normalizers: list
    pre_tokenizers: list
    decoders: set
    replaced: list
    model: dict
    added: list
    start: list

    @property
    def has_front(self):
        """Whether a text gets something in front of its first word, a space as a rule."""
        parts = (*self.normalizers, *self.pre_tokenizers)
        return any(_without_front(part) != part for part in parts)

    @property
    def drops(self):
        """Whether a part takes characters out that are no white space."""
        parts = (*self.normalizers, *self.pre_tokenizers)
        return any(_without_drops(part) != part for part in parts)

    def json(self, *, whole=False, front=True, drops=True):
        """Text of JSON (str) for the tokenizers package.

        Parameters
        ----------
        whole : bool
            With a model of bytes alone, which writes all that comes to it, in place of the file's.
        front : bool
            False: nothing is put in front of a text.
        drops : bool
            False: no part takes out what is no white space.
        """
        def written(parts):
            parts = parts if front else filter(None, map(_without_front, parts))
            return list(parts if drops else filter(None, map(_without_drops, parts)))

        return json.dumps({
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": self.added,
            "normalizer": _sequence(written(self.normalizers), "normalizers"),
            "pre_tokenizer": _sequence(written(self.pre_tokenizers), "pretokenizers"),
            "post_processor": None, "decoder": None, "model": BYTE_MODEL if whole else self.model})


def _without_front(part):
    """A part that puts nothing in front of a text; None where it did nothing else."""
    if part["type"] == "Prepend":
        return None
    if part["type"] == "Metaspace":
        kept = {name: value for name, value in part.items() if name != "add_prefix_space"}
        return kept | {"prepend_scheme": "never"}
    return part | {"add_prefix_space": False} if part["type"] == "ByteLevel" else part


def _without_drops(part):
    """A part that takes out white space at the most; None where it did nothing else.

    What one form of a character becomes another by (lower case, NFKC, a replacement) is no loss:
    the model was made for texts so written.
    """
    if part["type"] == "StripAccents" or part["type"] == "Replace" and part.get("content") == "":
        return None
    return part | {"behavior": "Isolated"} if part.get("behavior") == "Removed" else part


def _sequence(parts, container):
    if len(parts) > 1:
        return {"type": "Sequence", container: parts}
    return parts[0] if parts else None


def _need(condition, what):
    if not condition:
        raise TokenizerFileError(what)


def _natural(value):
    return type(value) is int and 0 <= value <= MOST_ID


def _bool(value):
    return isinstance(value, bool)


def _text(value):
    return isinstance(value, str) and len(value) <= MOST_TEXT


def _literal(value):
    return isinstance(value, dict) and set(value) == {"String"} and _text(value["String"]) and value["String"] != ""


def _pattern(value):
    return _literal(value) or isinstance(value, dict) and set(value) == {"Regex"} and _text(value["Regex"]) \
        and value["Regex"] != ""


def _one_of(*names):
    return lambda value: value in names


_BEHAVIOR = _one_of("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
NORMALIZERS = {
    "Prepend": {"prepend": _text}, "Replace": {"pattern": _literal, "content": _text},
    "Strip": {"strip_left": _bool, "strip_right": _bool},
    **{name: {} for name in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")}}
PRE_TOKENIZERS = {
    "ByteLevel": {"add_prefix_space": _bool, "trim_offsets": _bool, "use_regex": _bool},
    "Metaspace": {"replacement": lambda v: isinstance(v, str) and len(v) == 1, "split": _bool,
                  "prepend_scheme": _one_of("always", "never", "first"), "add_prefix_space": _bool},
    "Split": {"pattern": _pattern, "behavior": _BEHAVIOR, "invert": _bool},
    "Digits": {"individual_digits": _bool}, "Punctuation": {"behavior": _BEHAVIOR}, "Whitespace": {},
    "WhitespaceSplit": {}}


def _parts(value, what, container, depth=0):
    """The parts (dicts) of a component, Sequences taken apart."""
    if value is None:
        return []
    _need(isinstance(value, dict) and isinstance(value.get("type"), str), f"{what} is {short(value)}")
    if value["type"] != "Sequence":
        return [value]
    inner = value.get(container)
    _need(isinstance(inner, list) and len(inner) <= MOST_PARTS and depth < MOST_DEPTH,
          f"{what}: a Sequence needs {container}, at most {MOST_PARTS} and not nested too deeply")
    parts = [part for one in inner for part in _parts(one, what, container, depth + 1)]
    _need(len(parts) <= MOST_PARTS, f"{what} has {len(parts)} parts: at most {MOST_PARTS} are read")
    return parts


def _component(value, what, container, known):
    """The parts (list of dict) of a component, written anew with known fields only."""
    out = []
    for part in _parts(value, what, container):
        _need(part["type"] in known, f"{what} {short(part['type'])} is not supported: only {', '.join(known)} are")
        fields = {name: part[name] for name in known[part["type"]] if name in part}
        for name, value in fields.items():
            _need(known[part["type"]][name](value), f"{what} {part['type']}: {name} is {short(value)}")
        out.append({"type": part["type"]} | fields)
    return out


def _growth(parts):
    """Bytes that normalizers make of one byte, at most."""
    growth = 1.0
    for part in parts:
        if part["type"] == "Replace" and {"pattern", "content"} <= set(part):
            growth *= max(1.0, len(_encoded(part["content"])) / len(_encoded(part["pattern"]["String"])))
        else:
            growth *= {"NFKC": 18, "NFKD": 18, "NFC": 3, "NFD": 4, "Lowercase": 2}.get(part["type"], 1)
    return growth


def _encoded(text):
    return text.encode("utf-8", "surrogatepass")


def _model(model):
    """The BPE model written anew."""
    _need(isinstance(model, dict) and model.get("type", "BPE") == "BPE", "its model is no BPE")
    vocab, merges = model.get("vocab"), model.get("merges")
    _need(isinstance(vocab, dict) and vocab and isinstance(merges, list), "its model has no vocab and merges")
    for piece, number in vocab.items():
        _need(piece != "" and _natural(number), f"piece {short(piece)} has the id {short(number)}")
    _need(len(set(vocab.values())) == len(vocab), "two pieces of its vocab have the same id")
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        _need(isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) and p for p in pair),
              f"the merge {short(merge)} is no pair of pieces")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        _need(not model.get(name), f"its model has the {name} {short(model.get(name))}, which is not supported")
    unknown = model.get("unk_token")
    _need(unknown is None or isinstance(unknown, str), f"unk_token is {short(unknown)}")
    flags = {name: model.get(name, False) for name in ("fuse_unk", "byte_fallback", "ignore_merges")}
    for name, value in flags.items():
        _need(_bool(value), f"{name} is {short(value)}")
    return {"type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "vocab": vocab, "merges": merges} | flags


def _added(tokens):
    """The added tokens written anew."""
    _need(tokens is None or isinstance(tokens, list), f"added_tokens is {short(tokens)}")
    out = []
    for token in tokens or ():
        _need(isinstance(token, dict) and _natural(token.get("id")) and _text(token.get("content"))
              and token["content"], f"the added token {short(token)} has no id and content")
        flags = {name: token.get(name, False)
                 for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        _need(all(map(_bool, flags.values())), f"the added token {short(token['content'])} has bad flags")
        out.append({"id": token["id"], "content": token["content"]} | flags)
    return out


def _start(processor):
    """Ids of the special tokens that a post-processor puts in front of a text.

    Those behind a text end it: a text that is gone on with has none.
    """
    out = []
    for part in _parts(processor, "post_processor", "processors"):
        kind = part["type"]
        _need(kind in START_MARKS, f"post_processor {short(kind)} is not supported: only "
              f"{', '.join(START_MARKS)} are")
        out = START_MARKS[kind](part) + out  # each works on what the one before has made
    return out


def _template_start(part):
    single, special, out = part.get("single"), part.get("special_tokens"), []
    _need(isinstance(single, list) and isinstance(special, dict),
          "its template has no single and special_tokens")
    for piece in single:
        _need(isinstance(piece, dict), f"its template has {short(piece)}")
        if "SpecialToken" not in piece:
            break
        token = piece["SpecialToken"]
        name = token.get("id") if isinstance(token, dict) else None
        entry = special.get(name) if isinstance(name, str) else None
        ids = entry.get("ids") if isinstance(entry, dict) else None
        _need(isinstance(ids, list) and all(map(_natural, ids)),
              f"its template has {short(piece)}, which has no ids")
        out += ids
    return out


def _class_start(part):
    mark = part.get("cls")
    _need(isinstance(mark, list) and len(mark) == 2 and isinstance(mark[0], str)
          and _natural(mark[1]),
          f"post_processor {part['type']}: cls is {short(mark)}, which is no token with its id")
    return [mark[1]]


START_MARKS = {"TemplateProcessing": _template_start, "RobertaProcessing": _class_start,
               "BertProcessing": _class_start, "ByteLevel": lambda part: []}


def _replaced(decoders):
    """The replacements of decoders: a space for U+2581 as a rule."""
    out = []
    for part in decoders:
        if part["type"] == "Metaspace":
            old = part.get("replacement", "\u2581")
            _need(isinstance(old, str) and len(old) == 1,
                  f"decoder Metaspace: replacement is {short(old)}")
            out.append((old, " "))
        elif part["type"] == "Replace":
            pattern, content = part.get("pattern"), part.get("content")
            _need(_literal(pattern) and _text(content),
                  f"decoder Replace has {short(pattern)}, {short(content)}")
            out.append((pattern["String"], content))
    return out


def check_tokenizer(text):
    """The TokenizerFile in the text (str) of a tokenizer.json.

    Raises
    ------
    TokenizerFileError
    """
    try:
        raw = strictjson.parse(text)
    except strictjson.JsonError as error:
        raise TokenizerFileError(str(error)) from None
    _need(isinstance(raw, dict), "it is no JSON object")
    normalizers = _component(raw.get("normalizer"), "normalizer", "normalizers", NORMALIZERS)
    _need(_growth(normalizers) <= MOST_GROWTH, "its normalizer makes texts more than a thousand times longer")
    pre_tokenizers = _component(raw.get("pre_tokenizer"), "pre_tokenizer", "pretokenizers",
                                PRE_TOKENIZERS)
    for name in ("ByteLevel", "Metaspace"):  # each makes a text longer
        _need(sum(p["type"] == name for p in pre_tokenizers) <= 1, f"its pre_tokenizer has {name} twice")
    decoders = _parts(raw.get("decoder"), "decoder", "decoders")
    return TokenizerFile(normalizers, pre_tokenizers, {part["type"] for part in decoders},
                         _replaced(decoders), _model(raw.get("model")),
                         _added(raw.get("added_tokens")), _start(raw.get("post_processor")))
