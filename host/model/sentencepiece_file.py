"""tokenizer.model of the sentencepiece package as a tokenizer.json with the same ids.

The file is taken apart by the package's own description of it; ids come from the tokenizers package
afterwards, as for every model. What that would write in another way is refused.
"""

import json

from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.extras import install_hint
from sterna.sim.golden.strictjson import short

SPACE = "\u2581"  # what the package writes for a space
LONGEST = 256  # characters of a piece, whose merges take the square of them; the package makes 16
BPE = 2  # of trainer_spec.model_type
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # of a piece
_HINT = "load it with transformers and save it by save_pretrained(FOLDER), which writes tokenizer.json"


class SentencePieceError(SternaError, ValueError):
    """A tokenizer.model that cannot be used; one line without the file's name."""


def _parsed(data):
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise SentencePieceError("reading it takes the sentencepiece package: install it with "
                                 f"{install_hint('sentencepiece')}") from None
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise SentencePieceError("damaged, or no file of sentencepiece: download it again") from None
    if not model.pieces:
        raise SentencePieceError("it has no pieces: download it again")
    return model


def _check(model):
    """SentencePieceError for what the tokenizers package would write in another way."""
    trained, normal = model.trainer_spec, model.normalizer_spec
    kinds = {piece.type for piece in model.pieces}
    wrong = [(trained.model_type != BPE, "its model is no BPE"),
             (BYTE not in kinds, "it has no pieces for bytes (byte_fallback)"),
             (bool(normal.precompiled_charsmap),
              f"it normalises texts by {short(normal.name)}, and only \"identity\" is read"),
             (normal.remove_extra_whitespaces, "it takes out spaces that stand side by side"),
             (not normal.escape_whitespaces, f"it does not write spaces as {SPACE}"),
             (trained.treat_whitespace_as_suffix, "it writes spaces behind words"),
             (not kinds <= {NORMAL, UNKNOWN, CONTROL, BYTE},
              "it has pieces that its user has defined, or unused ones")]
    for bad, what in wrong:
        if bad:
            raise SentencePieceError(f"{what}: {_HINT}")


def _merges(pieces):
    """Pairs [left, right] of pieces whose union is one, the best first: of high score, then long ones.

    Parameters
    ----------
    pieces : dict of str to (int, float)
        Ids and scores of the pieces that may be merged.
    """
    found = []
    for piece, (_, score) in pieces.items():
        pairs = [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in pieces and piece[k:] in pieces]
        pairs.sort(key=lambda pair: (pieces[pair[0]][0], pieces[pair[1]][0]))
        found += [(score, len(left), len(right), left, right) for left, right in pairs]
    found.sort(key=lambda merge: merge[:3], reverse=True)
    return [[left, right] for *_, left, right in found]


def tokenizer_json_of(data, add_start=True):
    """Text of a tokenizer.json (str) for the bytes of a tokenizer.model.

    Parameters
    ----------
    data : bytes
    add_start : bool
        Texts begin with its start mark, if it has one.

    Raises
    ------
    SentencePieceError
        It cannot be read, or gives other ids than the tokenizers package would.
    """
    model = _parsed(data)
    _check(model)
    names = [piece.piece for piece in model.pieces]
    longest = max(names, key=len)
    if len(longest) > LONGEST:
        raise SentencePieceError(f"the piece {short(longest)} has {len(longest):,} characters: at most {LONGEST} are "
                                 "read")
    if len(set(names)) != len(names):
        raise SentencePieceError("a piece stands twice in it: download it again")
    normal = {piece.piece: (k, piece.score) for k, piece in enumerate(model.pieces) if piece.type == NORMAL}
    unknown = next((piece.piece for piece in model.pieces if piece.type == UNKNOWN), None)
    start = model.trainer_spec.bos_id
    steps = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}]
    if model.normalizer_spec.add_dummy_prefix:
        steps.insert(0, {"type": "Prepend", "prepend": SPACE})
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    processor = None
    if add_start and 0 <= start < len(names):
        mark = names[start]
        processor = {"type": "TemplateProcessing", "pair": [],
                     "single": [{"SpecialToken": {"id": mark, "type_id": 0}},
                                {"Sequence": {"id": "A", "type_id": 0}}],
                     "special_tokens": {mark: {"id": mark, "ids": [start], "tokens": [mark]}}}
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None, "post_processor": processor,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {name: k for k, name in enumerate(names)}, "merges": _merges(normal)}}, ensure_ascii=False)
