"""How large the waveforms of a simulation get, and an end before they fill the disk."""

from pathlib import Path

# Bytes of VCD per byte of the weight stream and token: 1,370 (story) and 2,370 (tiny) on the preset sim,
# 3,260 (tiny) on lanes10.
VCD_PER_STREAM_BYTE = 2000
GB = 10**9


def expectation(path, stream_bytes, limit_gb):
    """The line to show before a run that writes waveforms to ``path``."""
    line = f"waves: {path} will take about {stream_bytes * VCD_PER_STREAM_BYTE / GB:.2g} GB for every token"
    return line + (f"; the run ends behind {limit_gb:g} GB (--waves-limit)" if limit_gb else "")


class WavesLimit:
    """Tells when a file has reached its limit.

    Parameters
    ----------
    path : Path or None
        The VCD file; None is never full.
    limit_gb : float
        In 10^9 bytes; 0: no limit.
    """

    def __init__(self, path, limit_gb):
        self.path, self.limit_bytes = path and Path(path), limit_gb * GB

    def reached(self):
        """Whether the file is as long as the limit (bool)."""
        if self.path is None or not self.limit_bytes:
            return False
        try:
            return self.path.stat().st_size >= self.limit_bytes
        except OSError:
            return False
