"""The model that is planned for: by name, as a geometry, or out of a file or folder."""

from pathlib import Path

from sterna.host.errors import UsageError
from sterna.host.model.image import Image
from sterna.sim.golden.packed import Geometry, PackError, read_config

# The published models (docs/numerics.md), and one of 13 B weights that nobody has published: its layout follows the
# published code's rule, intermediate = 8/3 hidden rounded up to 256.
NAMES = {
    "370m": Geometry(1024, 2816, 24, 32000),
    "1.3b": Geometry(2048, 5632, 24, 32000),
    "2.7b": Geometry(2560, 6912, 32, 32000),
    "13b": Geometry(5120, 13824, 40, 32000),
}
FIELDS = ("hidden", "intermediate", "layers", "vocabulary")
LARGEST = 1 << 20  # of each number of a geometry: beyond it nothing here has a meaning


def geometry_of(text):
    """(what to call it, Geometry) of a MODEL argument: a name, four numbers, an image or a checkpoint folder.

    Of a folder only config.json is read.

    Raises
    ------
    UsageError
        It is none of these, or a number of a geometry is not natural.
    ImageError, PackError
        The image is damaged; the configuration is not that of a model.
    """
    name = text.strip().lower()
    if name in NAMES:
        return name, NAMES[name]
    path = Path(text)
    if text and path.is_dir():
        return path.resolve().name, read_config(path)
    if text and path.exists():
        image = Image.load(path)
        return image.name, image.geometry
    if "," in text:
        return text, _numbers(text)
    raise UsageError(f"no such model {text!r}: give an image, a checkpoint folder, one of {', '.join(NAMES)}, or "
                     f"{','.join(FIELDS)} as in 1024,2816,24,32000")


def _numbers(text):
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != len(FIELDS):
        raise UsageError(f"geometry {text!r}: {len(parts)} numbers: give {','.join(FIELDS)} as in 1024,2816,24,32000")
    numbers = []
    for field, part in zip(FIELDS, parts, strict=True):
        if not (part.isascii() and part.isdigit() and len(part) < 10 and 0 < int(part) <= LARGEST):
            raise UsageError(f"geometry {text!r}: {field} is {part!r}: use a whole number from 1 to {LARGEST}")
        numbers.append(int(part))
    try:
        return Geometry(*numbers)
    except PackError as error:
        raise UsageError(f"geometry {text!r}: {error}") from None
