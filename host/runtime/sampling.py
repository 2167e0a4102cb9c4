"""How the next token is picked, and what a command wants from a build before anything is sent to it."""

from dataclasses import dataclass, replace

from sterna.host.device.run import stop_tokens
from sterna.host.errors import UsageError
from sterna.hw.config import longest_text
from sterna.hw.protocol import MOST_ROWS
from sterna.sim.golden import fp24
from sterna.sim.golden.toplist import p_code_of

LONGEST = 3  # tokens that a draft is looked for by
UNLIMITED = 1 << 31  # tokens: as many as come until the text ends
SEEDS = 1 << 32  # a seed is below this


@dataclass(frozen=True)
class Sampling:
    """How the next token is picked.

    Attributes
    ----------
    temperature : float
        0 takes the best, above 0 samples.
    seed : int
        32 bits.
    top_k : int
        Only among the best so many; 0: among all, or with ``top_p`` below 1 among those that the device lists.
    top_p : float
        Only among the fewest best that have this share of the list's probability; 1.0: off.
    """

    temperature: float = 0.0
    seed: int = 0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def inverse_temperature_bits(self):
        """fp24 bits of 1/temperature (int)."""
        return int(fp24.to_bits(fp24.round24(1 / self.temperature))) if self.temperature > 0 else 0

    @property
    def limited(self):
        """Whether a list of the best rows is needed; the best of all is on top of every list."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1)

    @property
    def top_bits(self):
        """Register ``top`` (int): k, and p in units of 2^-16 where it limits."""
        if not self.limited:
            return 0
        return self.top_k | (p_code_of(self.top_p) if self.top_p < 1 else 0) << 16

    def within(self, rows):
        """The Sampling for a device whose list has ``rows`` rows: top-p alone takes the whole list.

        Raises
        ------
        UsageError
            The list is too short, or there is none.
        """
        if not self.limited:
            return replace(self, top_k=0, top_p=1.0)
        option = f"--top-k {self.top_k}" if self.top_k else f"--top-p {self.top_p:g}"
        if not rows:
            raise UsageError(f"{option}: this build has no list of the best tokens: leave it out, or use a build "
                             "with one, in simulation for instance --device sim")
        if self.top_k > rows:
            raise UsageError(f"{option}: the list of this build has {rows} tokens: use 1 to {rows}"
                             + (", or a build with a longer one" if rows < MOST_ROWS else ""))
        return replace(self, top_k=self.top_k or rows)


@dataclass(frozen=True)
class Demands:
    """What a command wants from a build.

    Attributes
    ----------
    sampling : Sampling
    draft : int
        Tokens to propose behind each one.
    slots : int
        Sequences side by side.
    tokens : int
        Of the longest text, prompt included.
    """

    sampling: Sampling = Sampling()
    draft: int = 0
    slots: int = 1
    tokens: int = 0

    def check(self, build):
        """UsageError if a build (Config or DeviceInfo, None for the golden model) lacks something."""
        self.sampling.within(build.top_k if build else MOST_ROWS)
        slots = build.batch if build else 1
        what = "the golden model makes one token at a time" if not build else \
            "this build has one slot" if slots == 1 else f"this build has {slots} slots"
        other = ", or a device with slots, in simulation for instance --device sim:sim,batch=4" if slots == 1 else ""
        if self.draft >= slots and self.draft:
            raise UsageError(f"--draft {self.draft}: {what}: use 0{f' to {slots - 1}' if slots > 1 else ''}{other}")
        if self.slots > slots:
            raise UsageError(f"--batch {self.slots}: {what}: use {f'1 to {slots}' if slots > 1 else 1}{other}")
        if build:
            check_length(build, self.tokens)

    def check_cpu(self, slots):
        """UsageError if the kernels of a CPU, which make texts in so many ``slots``, lack something."""
        self.sampling.within(MOST_ROWS)
        if self.draft:
            raise UsageError(f"--draft {self.draft}: the cpu takes no proposals: use 0, or a device with slots, in "
                             "simulation for instance --device sim:sim,batch=4")
        if self.slots > slots:
            raise UsageError(f"--batch {self.slots}: the cpu makes {slots} texts side by side: use 1 to {slots}")


def check_length(build, tokens):
    """UsageError if a text of so many tokens is too long for the registers of a build (Config or DeviceInfo)."""
    longest = longest_text(build)
    if tokens > longest:
        many = f"{tokens:,} tokens" if tokens < UNLIMITED else "any length"
        raise UsageError(f"a text of {many}: this build counts positions with {build.register_bits} bits: make it "
                         f"shorter, at most {longest:,} tokens with the prompt (generate: -c {longest})")


def check_end(build, stop):
    """UsageError if a build takes the first token of ``stop`` for none; the host sees to the others."""
    end = next(iter(stop_tokens(stop)), None)
    if end is not None and end >= longest_text(build):
        raise UsageError(f"the end of a text is token {end}, which a build with tokens of {build.register_bits} bits "
                         "does not stop at: use --ignore-eos, or a build with more register_bits")


def propose(text, count, longest=LONGEST):
    """Tokens that may follow a text, to be verified in one run of the device.

    The last ``longest`` tokens, or fewer where these have no match, are looked for earlier in the text; of several
    places the last one counts. What follows there is proposed. Where the text ends before ``count`` tokens, the
    proposal itself is read on, so that a text that repeats itself gives repetitions.

    Parameters
    ----------
    text : sequence of int
    count : int
        Tokens to propose at most.
    longest : int
        Tokens to compare at most.

    Returns
    -------
    list of int
        ``count`` tokens, or none if even the last token is new.
    """
    best, behind = 0, None
    last = len(text) - 1
    for at in range(last - 1, -1, -1):
        length = 0
        while length < longest and length <= at and text[at - length] == text[last - length]:
            length += 1
        if length > best:
            best, behind = length, at + 1
            if best == longest:
                break
    if behind is None or count <= 0:
        return []
    out = []
    for k in range(behind, behind + count):
        out.append(text[k] if k <= last else out[k - last - 1])
    return out
