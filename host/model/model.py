"""A model as the commands take it with -m: an image file or a checkpoint folder."""

from functools import cached_property
from pathlib import Path

from sterna.firmware.layout import memory_map, tiling_of
from sterna.host.errors import HostError
from sterna.host.model.image import Image, ImageError, build_image
from sterna.host.model.text import TextError, Vocabulary
from sterna.sim.golden.packed import load_checkpoint, pack, read_config, read_json
from sterna.sim.golden.strictjson import read_bytes, short

TOKENIZER_BYTES = 1 << 26  # the largest tokenizer.json that is read


class ModelError(HostError):
    """A model that is not there, or that a command cannot use."""


def check_size(path, config):
    """Refuses a checkpoint folder that a configuration has no memory for, from its config.json alone.

    Raises
    ------
    LayoutError
        It does not fit; names what holds it.
    PackError
        There is no config.json, or not that of a model.
    """
    if Path(path).is_dir():
        memory_map(config, read_config(path))


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
        Token that ends a text.

    Raises
    ------
    ModelError, ImageError, PackError
        There is no such file, or it is damaged or no model.
    """

    def __init__(self, path):
        self.path = Path(path)
        if not self.path.exists():
            raise ModelError(f"no such model {str(path)!r}: give a .sterna file or a checkpoint folder")
        if self.path.is_dir():
            self.image, self.name = None, self.path.resolve().name
            self.geometry, self._tensors = load_checkpoint(self.path)
            self.end = self._end_of_folder()
        else:
            self.image = Image.load(self.path)
            self.name, self.geometry, self.end = self.image.name, self.image.geometry, self.image.eos

    def _end_of_folder(self):
        end = read_json(self.path).get("eos_token_id")
        if isinstance(end, list) and end:
            end = end[0]
        if type(end) is not int or not 0 <= end < self.geometry.vocab_size:
            raise ModelError(f"{self.path / 'config.json'}: eos_token_id is {short(end)}: must be a token id below "
                             f"{self.geometry.vocab_size}")
        return end

    @property
    def size_bytes(self):
        """Bytes of the image, or of the folder's weight files (int)."""
        return len(self.image.data) if self.image else self._tensors.size_bytes

    @cached_property
    def packed(self):
        """The PackedModel."""
        return self.image.unpack() if self.image else pack(self.geometry, self._tensors)

    @cached_property
    def tokenizer_json(self):
        """Text of tokenizer.json (str)."""
        if self.image:
            try:
                return self.image.tokenizer_json
            except ImageError as error:
                raise ImageError(f"{self.path}: {error}") from None
        path = self.path / "tokenizer.json"
        if not path.exists():
            raise ModelError(f"{self.path} holds no tokenizer.json: copy that of the model into the "
                             "folder; transformers writes one with "
                             "AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)")
        try:
            return read_bytes(path, TOKENIZER_BYTES).decode()
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None

    @cached_property
    def vocabulary(self):
        """The Vocabulary; ModelError if the tokenizer writes ids that the model does not have."""
        try:
            vocabulary = Vocabulary(self.tokenizer_json, self.end)
        except TextError as error:
            raise TextError(f"{self.path}: {error}") from None
        if vocabulary.largest >= self.geometry.vocab_size:
            raise ModelError(f"{self.path}: the tokenizer has a token {vocabulary.largest} and the model "
                             f"{self.geometry.vocab_size} tokens: they do not belong together")
        return vocabulary

    def build(self, config, name=None):
        """Bytes of the image of this model for a configuration; ImageError if it does not fit the memory."""
        memory_map(config, self.geometry)  # refused before the conversion
        return build_image(self.packed, config, self.tokenizer_json, name or self.name, self.end)

    def image_for(self, config, tell):
        """The Image for a device: the file's own, or one tiled anew in memory.

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
        if self.image and self.image.tiling == tiling_of(config):
            self.image.check(config)
            return self.image
        if self.image:
            shape = self.image.tiling
            tell(f"the image is tiled for {shape['rows']} x {shape['columns']} with {shape['lanes']} lanes, the "
                 f"device is {config.rows} x {config.columns} with {config.lanes}: tiling it anew in memory")
        return Image(self.build(config))
