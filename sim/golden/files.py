"""Files that are whole or not there, the one way in which Sterna writes them; and where its builds lie."""

import errno
import os
import secrets
import stat
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sterna.sim.golden.errors import SternaError

PART_NAME = 40  # characters of the name that are kept while a file is written
LINKS = 40  # of one path, as the kernel follows
BUILD_VARIABLE = "STERNA_BUILD"
_CHECKOUT = Path(__file__).resolve().parents[2]


class NoFolderError(SternaError, RuntimeError):
    """There is no place for what is built; one line."""


def build_folder():
    """Folder of everything that is compiled, synthesised or placed (pathlib.Path); it need not be there yet.

    It is $STERNA_BUILD if that is set, ``build`` in a checkout of Sterna, and ``sterna`` in the user's folder of
    caches ($XDG_CACHE_HOME or ~/.cache) where Sterna was installed.
    """
    if named := os.environ.get(BUILD_VARIABLE):
        return Path(named).absolute()
    if (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / "build"
    caches = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of these variables says to ignore a relative path.
    try:
        return (Path(caches) if os.path.isabs(caches) else Path.home() / ".cache") / "sterna"
    except RuntimeError:
        raise NoFolderError(f"this user has no home folder for what is built: name a folder with {BUILD_VARIABLE}") \
            from None


def _followed(path):
    """The path behind all links (str), or None behind a link of the kernel (/dev/stdout), which only opening
    follows.
    """
    path = os.fspath(path)
    for _ in range(LINKS):
        if not os.path.islink(path):
            return path
        folder = os.path.realpath(os.path.dirname(path) or ".")
        if folder.startswith("/proc/"):
            return None
        path = os.path.join(folder, os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


@contextmanager
def _naming(path, every=True):
    """Gives an OSError the name ``path``; unless ``every``, only one without a name, as writing raises it."""
    try:
        yield
    except OSError as error:
        if every or error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


class _Through:
    """What is no regular file: written through."""

    def __init__(self, path):
        self.file = open(path, "wb")

    def finish(self):
        self.file.close()

    def discard(self):
        with suppress(OSError):  # of what is still buffered
            self.file.close()


class _Replacing:
    """A regular file, or a new one: written under another name in the same folder."""

    def __init__(self, target, old):
        if old and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        folder, name = os.path.split(target)
        self._target = target
        self._part = os.path.join(folder, f".{name[:PART_NAME]}.{secrets.token_hex(4)}.part")
        # Until it has the mode of the old file, nobody may read more of it than of that one.
        mode = stat.S_IMODE(old.st_mode) & 0o777 if old else 0o666
        handle = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        self.file = os.fdopen(handle, "w+b")
        if old:
            self._copy_rights(old)

    def _copy_rights(self, old):
        handle = self.file.fileno()
        now = os.fstat(handle)
        if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
            with suppress(PermissionError):  # only root gives files away
                os.fchown(handle, old.st_uid, old.st_gid)
        with suppress(PermissionError):  # some file systems know fewer modes
            os.fchmod(handle, stat.S_IMODE(old.st_mode))

    def finish(self):
        self.file.flush()
        os.fsync(self.file.fileno())  # some file systems say only now that they are full
        self.file.close()
        os.replace(self._part, self._target)

    def discard(self):
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            os.unlink(self._part)


def _opened(path):
    target = _followed(path)
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    if target is None or old and not stat.S_ISREG(old.st_mode):
        return _Through(path)
    return _Replacing(target, old)


@contextmanager
def writing(path):
    """A binary file to write; at the end of the block it is whole under its name, after an error it is not there.

    A regular file is written under another name in its folder first, so that a reader sees the old file or the whole
    new one. Links are followed; mode and owner of an old file are kept, a new one has what the umask leaves. What is
    no regular file (a device, a FIFO, /dev/stdout) is written through and stays what it is.

    Parameters
    ----------
    path : str or Path

    Yields
    ------
    binary file object
        One of a regular file can seek and be read.

    Raises
    ------
    OSError
        Its ``filename`` is ``path``, whatever name was being written. A file that its user may not write is refused.
    """
    with _naming(path):
        output = _opened(path)
    try:
        with _naming(path, every=False):
            yield output.file
        with _naming(path):
            output.finish()
    except BaseException:
        output.discard()
        raise


def write_files(contents):
    """Write files that belong together: none gets its name before all are written.

    Parameters
    ----------
    contents : dict of path to bytes or str
        A text is written as UTF-8.

    Raises
    ------
    OSError
        As of ``writing``.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            file = stack.enter_context(writing(path))
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()


def write_file(path, content):
    """Write one file of bytes or of a text (UTF-8); see ``writing``."""
    write_files({path: content})
