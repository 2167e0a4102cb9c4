"""What lies in the flash of a board that starts by itself: a model as the frames that load it."""

from sterna.firmware.program import build_program
from sterna.host.device.frames import Frame
from sterna.host.errors import HostError
from sterna.hw import protocol
from sterna.hw.protocol import FLASH_HEADER_BYTES, FLASH_MAGIC, FLASH_OFFSET, MAX_DATA_BYTES, Register

FLASH_BYTES = 16 << 20  # that of the iCEBreaker


class FlashError(HostError):
    """A model that a board cannot start from its flash, or a file that no board starts from."""


def load_requests(image, config):
    """Generator of (address, bytes) of all WRITEs that bring a model into a device: memory, program, constants;
    whole words each.

    Parameters
    ----------
    image : Image
        Tiled for ``config``.
    config : Config
    """
    program = build_program(config, image.geometry)
    for address, data in image.regions(config):
        yield address, bytes(data)
    yield protocol.register_address(Register.CONTROL), protocol.CONTROL_RESET.to_bytes(4, "little")
    yield protocol.PROGRAM, program.data
    for slot in range(config.batch):
        yield from protocol.scalar_writes(program.scalars, slot)


def flash_image(image, config):
    """Bytes for the flash of a board at ``FLASH_OFFSET``: magic, length, frames, an empty frame.

    Parameters
    ----------
    image : Image
        Tiled for ``config``.
    config : Config

    Raises
    ------
    ImageError, ProgramError
        The model does not fit the device.
    FlashError
        It does not fit the flash.
    """
    frames = []
    for address, data in load_requests(image, config):
        for at in range(0, len(data), MAX_DATA_BYTES):
            frames.append(Frame.write(len(frames) & 0xFF, address + at, data[at:at + MAX_DATA_BYTES]).encode())
    body = b"".join(frames) + protocol.DELIMITER
    if FLASH_OFFSET + FLASH_HEADER_BYTES + len(body) > FLASH_BYTES:
        raise FlashError(f"the model takes {len(body):,} bytes of flash and the board has "
                         f"{FLASH_BYTES - FLASH_OFFSET - FLASH_HEADER_BYTES:,} for it: use a smaller model")
    return FLASH_MAGIC + len(body).to_bytes(4, "little") + body
