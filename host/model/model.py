"""A model as the commands take it with -m: an image file or a checkpoint folder."""

import io
import tempfile
import threading
from functools import cached_property
from pathlib import Path

from sterna.firmware.layout import LayoutError, layout, memory_map, tiling_of
from sterna.host.errors import HostError
from sterna.host.model.image import MOST_ENDS, Image, ImageError, placed, write_image
from sterna.host.model.mapping import Mapping
from sterna.host.model.sentencepiece_file import tokenizer_json_of
from sterna.host.model.source import Source
from sterna.host.model.text import TextError, Vocabulary
from sterna.host.model.writing import naming_temporary
from sterna.sim.golden import strictjson
from sterna.sim.golden.checkpoint import CONFIG_BYTES, load_checkpoint, read_config, read_json
from sterna.sim.golden.packed import pack
from sterna.sim.golden.strictjson import read_bytes, short

TOKENIZER_BYTES = 1 << 26  # the largest tokenizer.json that is read
MEMORY_BYTES = 1 << 28  # of an image that is tiled anew in memory


class ModelError(HostError):
    """A model that is not there, or that a command cannot use."""


def check_size(path, config):
    """Refuses a checkpoint folder that a configuration has no memory for, from its config.json alone.

    Raises
    ------
    ModelError
        It does not fit; names the folder and what holds it.
    PackError
        There is no config.json, or not that of a model.
    """
    if Path(path).is_dir():
        check_fits(path, config, read_config(path))


def check_fits(path, config, geometry):
    """ModelError, which names the model's ``path``, if a configuration has no memory for a Geometry."""
    try:
        memory_map(config, geometry)
    except LayoutError as error:
        raise ModelError(f"{path}: {error}") from None


class Model:
    """An image file or a checkpoint folder; everything heavy is made when it is first asked for.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    name : str
    geometry : Geometry
    image : Image or None
        The image of the file; None for a folder.
    end : int
        Token that ended the texts of the training. It starts a text where the tokenizer has no
        start mark.
    ends : tuple of int
        Tokens that end a text that the model makes.

    Raises
    ------
    ModelError, ImageError, PackError
        There is no such file, or it is damaged or no model.
    """

    def __init__(self, path):
        self.path, self._kept, self._tiled, self._tiling = Path(path), {}, None, threading.Lock()
        if not self.path.exists():
            raise ModelError(f"no such model {str(path)!r}: give a .sterna file or a checkpoint folder")
        if self.path.is_dir():
            self.image, self.name = None, self.path.resolve().name
            self.geometry, self._tensors = load_checkpoint(self.path)
            self.end, self.ends = self._ends_of_folder()
        else:
            self._check_kind()
            self.image = Image.load(self.path)
            self.name, self.geometry = self.image.name, self.image.geometry
            self.end, self.ends = self.image.eos, self.image.ends

    def _check_kind(self):
        """ModelError for a file of weights that is no image, and for a device or FIFO."""
        if not self.path.is_file():
            raise ModelError(f"{self.path} is no regular file: give a .sterna file or a checkpoint folder")
        try:
            with self.path.open("rb") as file:
                start = file.read(4)
        except OSError:  # said by whoever reads it
            return
        if start == b"GGUF":
            raise ModelError(f"{self.path} is a GGUF file, whose weights cannot be packed: give the folder of the "
                             "checkpoint in safetensors that it was made from")
        if self.path.suffix == ".safetensors":
            raise ModelError(f"{self.path} holds weights alone: give its folder, with config.json and tokenizer.json")

    def _ends_of_folder(self):
        """(``end``, ``ends``) of a folder: generation_config.json goes before config.json.

        ``end`` stands first among ``ends``, if it is there: a device knows one of them.
        """
        trained = self._ends_in(self.path / "config.json", read_json(self.path))
        path, ends = self.path / "generation_config.json", ()
        if path.exists():
            try:
                raw = strictjson.read(path, CONFIG_BYTES)
            except (OSError, strictjson.JsonError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ModelError(f"cannot read {path}: {reason}") from None
            if not isinstance(raw, dict):
                raise ModelError(f"{path}: must hold a JSON object")
            ends = self._ends_in(path, raw)
        ends = ends or trained
        if not ends:
            path = self.path / "config.json"
            raise ModelError(f"{path}: there is no eos_token_id: give the id of the token, "
                             f"below {self.geometry.vocab_size}, that ends a text")
        end = (trained or ends)[0]
        return end, tuple(sorted(ends, key=lambda token: token != end))

    def _ends_in(self, path, raw):
        """The end tokens (tuple of int) of a configuration; ModelError if one is no token."""
        given = raw.get("eos_token_id")
        ends = given if isinstance(given, list) else [] if given is None else [given]
        for end in ends:
            if type(end) is not int or not 0 <= end < self.geometry.vocab_size:
                raise ModelError(f"{path}: eos_token_id is {short(given)}: must be token ids below "
                                 f"{self.geometry.vocab_size}")
        if len(ends) > MOST_ENDS:
            raise ModelError(f"{path}: eos_token_id has {len(ends)} tokens: the most are {MOST_ENDS}")
        return tuple(dict.fromkeys(ends))

    @property
    def size_bytes(self):
        """Bytes of the image, or of the folder's weight files (int)."""
        return len(self.image.data) if self.image else self._tensors.size_bytes

    @property
    def answer(self):
        """The known answer (Answer), None for a folder, and for an image that has none."""
        return self.image and self.image.answer

    @cached_property
    def packed(self):
        """The PackedModel."""
        if self.image:
            return self.image.unpack()
        return pack(self.geometry, self._tensors, lambda name: self._kept.setdefault(name))

    @property
    def kept(self):
        """Names of the matrices of a folder that were ternary already, as far as they have been made (list)."""
        return list(self._kept)

    @cached_property
    def tokenizer_json(self):
        """Text of tokenizer.json (str)."""
        if self.image:
            try:
                return self.image.tokenizer_json
            except ImageError as error:
                raise ImageError(f"{self.path}: {error}") from None
        path, pieces = self.path / "tokenizer.json", self.path / "tokenizer.model"
        if not path.exists() and not pieces.exists():
            raise ModelError(f"{self.path} holds no tokenizer.json and no tokenizer.model: copy that of the model "
                             "into the folder; transformers writes one with "
                             "AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)")
        if not path.exists():
            return self._from_sentencepiece(pieces)
        try:
            return read_bytes(path, TOKENIZER_BYTES).decode()
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None

    def _from_sentencepiece(self, path):
        """Text of the tokenizer.json (str) of a tokenizer.model."""
        settings, raw = self.path / "tokenizer_config.json", {}
        try:
            if settings.exists():
                raw = strictjson.read(settings, CONFIG_BYTES)
        except (OSError, strictjson.JsonError) as error:
            raise ModelError(f"cannot read {settings}: {getattr(error, 'strerror', None) or error}") from None
        start = raw.get("add_bos_token", True) if isinstance(raw, dict) else True
        try:
            return tokenizer_json_of(read_bytes(path, TOKENIZER_BYTES), start is not False)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: {getattr(error, 'strerror', None) or error}") from None

    @cached_property
    def vocabulary(self):
        """The Vocabulary; ModelError for pieces or start marks that the model does not have.

        Added tokens may have such ids: they are refused where a text uses them.
        """
        try:
            vocabulary = Vocabulary(self.tokenizer_json, self.end, self.geometry.vocab_size)
        except TextError as error:
            raise TextError(f"{self.path}: {error}") from None
        largest = max(vocabulary.largest_piece, *vocabulary.start)
        if largest >= self.geometry.vocab_size:
            raise ModelError(f"{self.path}: the tokenizer has a token {largest} and the model "
                             f"{self.geometry.vocab_size} tokens: they do not belong together")
        return vocabulary

    def write(self, file, config, name=None, *, answer=None, fits=True, progress=lambda done, total: None):
        """Write the image of this model for a configuration, see ``write_image``; returns its bytes (int).

        Tensors are read one after the other, each once; what goes along from image to image is kept.

        Parameters
        ----------
        file : binary file
        config : Config or DeviceInfo
        name : str, optional
        answer : callable(PackedModel, int), optional
            Makes the known answer, if there is none yet, of the model and its end; without it there will be none.
        fits : bool
            Refuse what the memory of the configuration does not hold.
        progress : callable(done, total)
            Told about bytes that have been read of the checkpoint, or written of the stream.
        """
        total, done = 0, 0

        def more(size):
            nonlocal done
            done += size
            progress(min(done, total), total)

        about = (config, self.tokenizer_json, name or self.name, self.end, self.ends)
        if self.image:
            shape = layout(tiling_of(config), self.geometry)
            total = shape.stream_bytes + shape.tree_bytes
            return write_image(file, self.packed, *about, source=self.image.source, fits=fits,
                               answer=self.answer or answer,
                               written=lambda part, number: more(shape.image_bytes(part)))
        total = self._tensors.size_bytes
        source = Source({path.name: read_bytes(path, limit) for path, limit in self._other_files()}, more)
        packed = pack(self.geometry, self._tensors.watched(source.watch), lambda name: self._kept.setdefault(name))
        return write_image(file, packed, *about, source=source.to_json, answer=answer, fits=fits)

    def _other_files(self):
        """(path, most bytes) of what a folder's model is made of besides tensors."""
        text = "tokenizer.json" if (self.path / "tokenizer.json").exists() else "tokenizer.model"
        limits = {"config.json": CONFIG_BYTES, "generation_config.json": CONFIG_BYTES, text: TOKENIZER_BYTES}
        return [(self.path / name, limit) for name, limit in limits.items() if (self.path / name).exists()]

    def build(self, config, name=None):
        """Bytes of the image of this model for a configuration; ImageError if it does not fit the memory."""
        file = io.BytesIO()
        self.write(file, config, name)
        return file.getvalue()

    def image_for(self, config, tell):
        """The Image for a device: the file's own, or one tiled anew, a large one in a temporary file; the last of
        these is kept.

        Parameters
        ----------
        config : Config or DeviceInfo
        tell : callable(str)
            Takes the line that says so.

        Raises
        ------
        ImageError
            The model does not fit the device's memory.
        """
        with self._tiling:  # devices of a pool are opened side by side
            return self._image_for(config, tell)

    def _image_for(self, config, tell):
        for image in (self.image, self._tiled):
            if image and image.tiling == tiling_of(config):
                image.check(config)
                return image
        size = placed(config, self.geometry).end  # refused before the conversion
        if self.image:
            shape = self.image.tiling
            tell(f"the image is tiled for {shape['rows']} x {shape['columns']} with {shape['lanes']} lanes, the "
                 f"device is {config.rows} x {config.columns} with {config.lanes}: tiling it anew in "
                 + ("memory" if size <= MEMORY_BYTES else "a temporary file"))
        # A board asks for it before it starts and again when it answers.
        self._tiled = Image(self.build(config)) if size <= MEMORY_BYTES else self._tiled_in_a_file(config)
        return self._tiled

    def _tiled_in_a_file(self, config):
        with tempfile.TemporaryFile() as file:
            with naming_temporary():
                self.write(file, config)
                file.flush()
            return Image(Mapping(file))
