"""Waveforms of a simulation: how large they get, which tokens they are of, and an end before they fill the disk."""

from dataclasses import dataclass
from pathlib import Path

from sterna.host.errors import UsageError

# Bytes per byte of the weight stream and token, of VCD: 1,370 (story) and 2,370 (tiny) on the preset sim, 3,260
# (tiny) on lanes10; of FST 200 (tiny) on the preset sim.
PER_STREAM_BYTE = {".fst": 200}
VCD_PER_STREAM_BYTE = 2000
GB = 10**9


@dataclass(frozen=True)
class Recording:
    """What ``--waves`` and its options ask for.

    Attributes
    ----------
    path : Path or None
        The file, FST if it ends in .fst, VCD otherwise; None: no waveforms.
    limit_gb : float
        In 10^9 bytes; 0: no limit.
    first, count : int
        The tokens of a text that are recorded: from the one at this position on, so many; 0: all behind. With 0 and 0
        the recording begins with the board, and holds what comes before the first token too.
    """

    path: Path | None = None
    limit_gb: float = 0.0
    first: int = 0
    count: int = 0

    def check(self, texts=1):
        """UsageError for numbers that cannot be, or for some tokens of several ``texts``."""
        if not 0 <= self.limit_gb < 1e9:
            raise UsageError(f"--waves-limit {self.limit_gb:g}: use the GB that the file may take, or 0 for no limit")
        for option, value in (("--waves-from", self.first), ("--waves-tokens", self.count)):
            if value < 0:
                raise UsageError(f"{option} {value}: use 0 or more")
            if value and self.path is None:
                raise UsageError(f"{option} {value}: needs --waves FILE")
            if value and texts > 1:
                raise UsageError(f"{option} {value}: is for one text: give one prompt, not {texts}")

    @property
    def whole(self):
        """Whether everything is recorded (bool)."""
        return not self.first and not self.count

    @property
    def limit_bytes(self):
        """The limit in bytes (int), 0: none."""
        return int(self.limit_gb * GB)

    def wanted(self, position):
        """Whether the token at a position is recorded (bool)."""
        return self.first <= position and not (self.count and position >= self.first + self.count)

    def room(self, position):
        """Tokens from a position on behind which recording begins or ends (int), None: neither comes."""
        edges = (self.first, self.first + self.count) if self.count else (self.first,)
        return next((edge - position for edge in edges if edge > position), None)

    def expectation(self, stream_bytes):
        """The line to show before a run whose tokens read ``stream_bytes`` of weights."""
        each = stream_bytes * PER_STREAM_BYTE.get(self.path.suffix, VCD_PER_STREAM_BYTE)
        tokens = f", {self.count} of them from token {self.first} on" if self.count else (
            f", from token {self.first} on" if self.first else "")
        line = f"waves: {self.path} will take about {each / GB:.2g} GB for every token{tokens}"
        return line + (f"; the run ends behind {self.limit_gb:g} GB (--waves-limit)" if self.limit_gb else "")

    def reached(self):
        """Whether the file is as long as the limit (bool)."""
        if self.path is None or not self.limit_bytes:
            return False
        try:
            return self.path.stat().st_size >= self.limit_bytes
        except OSError:
            return False
