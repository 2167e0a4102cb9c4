"""Files that are whole or not there: written under another name first."""

import os
import tempfile
from pathlib import Path


def write_file(path, data):
    """Write a file atomically: a reader sees the old file or the whole new one, and nothing else is left behind.

    Parameters
    ----------
    path : str or Path
    data : bytes

    Raises
    ------
    OSError
        Its ``filename`` is ``path``, whatever name was being written.
    """
    path, temporary = Path(path), None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
