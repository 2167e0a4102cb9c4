"""Figures of a run: wall-clock speeds, and what the device's counters say about its use of the memory."""

from collections import Counter
from dataclasses import dataclass, field

from sterna.hw.config import delivered_bytes

FP24_BYTES = 3
WEIGHT_BITS = {"trit5": 1.6, "bit2": 2.0}
STALLS = {"stall_stream": "stream", "stall_rows": "rows", "stall_idle": "idle", "refresh": "refresh"}


def useful_bytes(geometry, weight_code, output=True, tokens=1):
    """Bytes (float) that one run of the program cannot do without.

    All matrices at the code's bits per weight, the norm vectors and scales at 3 bytes a number, once for all tokens
    of the run; an embedding row with its scale for each of its ``tokens``, and of trees the rows of the neurons that
    each of them visits; with ``output`` also the head with its norm, which tokens inside a prompt do not need.
    Padding, the state and bytes read twice do not count.
    """
    hidden, vocab, count = geometry.hidden_size, geometry.vocab_size, geometry.num_hidden_layers
    if geometry.mixer == "tree":
        inner, mixer = 0, tokens * 2 * hidden * geometry.visits
    else:
        inner = geometry.intermediate_size
        mixer = 3 * hidden * inner
    weights = count * (4 * hidden * hidden + mixer) + output * vocab * hidden
    # Per layer: outer, W_f, W_i, W_g, keep, w_g, w_o, outer, W_gate or W_tree; w_d of gated units; six scales.
    # End: outer, W_head, a scale.
    numbers = count * (9 * hidden + inner + 6) + output * (2 * hidden + 1)
    return weights * WEIGHT_BITS[weight_code] / 8 + numbers * FP24_BYTES + tokens * (hidden + FP24_BYTES)


@dataclass(frozen=True)
class Usage:
    """What the counters say about tokens of one kind; every figure is None (``stalls`` empty) without counters.

    A run of the program reads the weights once, for the tokens of up to ``batch`` slots.

    Attributes
    ----------
    counters : Counter
        Sums of the device's counters over these tokens; and "tokens", which the host counts by the positions that the
        device has processed. With one slot these are as many as the runs.
    config : Config or DeviceInfo or None
    geometry : Geometry or None
    output : bool or None
        The tokens had an output: False inside a prompt; None: some had, so that what their runs needed is not known.
    """

    counters: Counter
    config: object
    geometry: object
    output: bool | None = True

    @property
    def cycles_per_token(self):
        """Mean cycles of a token (float)."""
        return self.counters["cycles"] / self.counters["tokens"] if self._counted else None

    @property
    def tokens_per_run(self):
        """Mean tokens of a run of the program (float)."""
        return self.counters["tokens"] / self.counters["runs"] if self._counted else None

    @property
    def _counted(self):
        return self.counters["runs"] and self.counters["tokens"]

    @property
    def useful_cycles(self):
        """Cycles in which the memory gives the useful bytes of a run, divided by its tokens (float)."""
        per_run = useful_bytes(self.geometry, self.config.weight_code, self.output, self.tokens_per_run)
        return per_run / delivered_bytes(self.config) / self.tokens_per_run

    @property
    def share(self):
        """Useful bytes / (bytes per cycle x cycles in which the memory could deliver);
        the weights count once per run.
        """
        deliverable = self.counters["cycles"] - self.counters["refresh"]
        if not self._counted or self.output is None or deliverable <= 0:
            return None
        return self.useful_cycles * self.counters["tokens"] / deliverable

    def stalls(self):
        """Share of the cycles per cause: dict of name -> float."""
        cycles = self.counters["cycles"]
        return {name: self.counters[key] / cycles for key, name in STALLS.items()} if cycles else {}

    def port_cycles(self):
        """Where the memory port's cycles per token go: dict of cause -> float.

        "useful": words' worth of useful bytes; "other": padding, the upper byte of stored numbers, the state;
        "refresh"; "full": no room in the FIFO; "empty": nothing to fetch; "wait": latency, writes,
        and a slower memory.
        """
        if not self._counted or self.output is None:
            return {}
        tokens = self.counters["tokens"]
        found = {cause: self.counters[name] / tokens for cause, name in
                 (("words", "port_busy"), ("refresh", "refresh"), ("full", "port_full"), ("empty", "port_empty"))}
        useful = self.useful_cycles * delivered_bytes(self.config) / self.config.word_bytes
        words = found.pop("words")
        return {"useful": useful, "other": words - useful, **found,
                "wait": self.cycles_per_token - words - sum(found.values())}


@dataclass
class Statistics:
    """What a run did; ``lines`` is its report.

    Attributes
    ----------
    prompt_tokens, prompt_seconds : int, float
        Tokens read before the first output began, and the wall time that took.
    tokens, seconds : int, float
        Tokens made, and their wall time.
    together : int
        Texts that were made side by side: their prompts are read among the tokens made, and in their time.
    counters : Counter
        Sums of the device's counters over the tokens made; empty where there is no device.
    prompt_counters : Counter
        The same over the tokens read before the first output began.
    config : Config or None
        The device's configuration.
    geometry : Geometry or None
    simulated : bool
        The cycles come from a simulation: speeds at the clock are projections.
    weight_bytes : int
        What one reading of all weights takes from this machine's memory, of trees with the rows that one text
        visits; 0: not known.
    passes : int
        Such readings over the tokens made.
    slots : int
        Texts that are made side by side at most, where there is no ``config`` to say so.
    """

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    together: int = 0
    counters: Counter = field(default_factory=Counter)
    prompt_counters: Counter = field(default_factory=Counter)
    config: object = None
    geometry: object = None
    simulated: bool = False
    weight_bytes: int = 0
    passes: int = 0
    slots: int = 0

    @property
    def weight_bytes_per_second(self):
        """Bytes of weights read per second of wall time while tokens were made (float), None if not known."""
        return self.weight_bytes * self.passes / self.seconds if self.passes and self.seconds > 0 else None

    @property
    def usage(self):
        """Usage over the tokens made; side by side also over those that were read."""
        mixed = self.together and self.prompt_tokens
        return Usage(self.counters, self.config, self.geometry, output=None if mixed else True)

    @property
    def prompt_usage(self):
        """Usage over the tokens that were only read."""
        return Usage(self.prompt_counters, self.config, self.geometry, output=False)

    @property
    def cycles_per_token(self):
        """Mean cycles of a token (float) as in ``usage``, None without counters."""
        return self.usage.cycles_per_token

    @property
    def share(self):
        """Useful bytes of the tokens made over what the memory could deliver, None without counters."""
        return self.usage.share

    def stalls(self):
        """Share of the cycles of the tokens made per cause: dict of name -> float."""
        return self.usage.stalls()

    def to_json(self):
        """The figures as a dictionary for --json outputs."""
        # Side by side prompts are read among the tokens made: they have no time of their own.
        out = {"prompt_tokens": self.prompt_tokens,
               "prompt_seconds": None if self.together else self.prompt_seconds, "tokens": self.tokens,
               "seconds": self.seconds, "together": self.together}
        if self.cycles_per_token is not None:
            out |= {"cycles_per_token": self.cycles_per_token, "tokens_per_run": self.usage.tokens_per_run,
                    "share": self.share, "stalls": self.stalls(),
                    "clock_hz": self.config.clock_hz, "simulated": self.simulated, "counters": dict(self.counters)}
        if self.weight_bytes_per_second is not None:
            out |= {"weight_bytes": self.weight_bytes, "passes": self.passes,
                    "weight_bytes_per_second": self.weight_bytes_per_second}
        if self.prompt_usage.cycles_per_token is not None:
            out |= {"prompt_cycles_per_token": self.prompt_usage.cycles_per_token,
                    "prompt_tokens_per_run": self.prompt_usage.tokens_per_run}
        return out

    def lines(self):
        """The report, one line of text per kind of figure."""
        def speed(tokens, seconds):
            rate = f", {tokens / seconds:.2f} tokens/s" if tokens and seconds > 0 else ""
            return f"{tokens} token{'' if tokens == 1 else 's'} in {seconds:.2f} s{rate}"

        out = [f"prompt:     {speed(self.prompt_tokens, self.prompt_seconds)} (wall clock)",
               f"generation: {speed(self.tokens, self.seconds)} (wall clock)"]
        if self.together:
            slots = self.config.batch if self.config else self.slots
            out = [f"together:   {self.together} texts in {slots} slots, {self.prompt_tokens} tokens read; "
                   f"made: {speed(self.tokens, self.seconds)} (wall clock)"]
        if self.weight_bytes_per_second is not None:
            out.append(f"weights:    {self.weight_bytes / 1e6:.1f} MB read {self.passes} times, "
                       f"{self.weight_bytes_per_second / 1e9:.2f} GB/s")
        if self.cycles_per_token is not None:
            mhz = f"{self.config.clock_hz / 1e6:g} MHz"
            label = f"projected at {mhz} from simulated cycles" if self.simulated else f"device time at {mhz}"
            out.append(f"cycles:     {self.cycles_per_token:.0f} per token; "
                       f"{self.config.clock_hz / self.cycles_per_token:.1f} tokens/s {label}")
        for name, usage in (("prompt", self.prompt_usage), ("generation", self.usage)):
            if usage.tokens_per_run and usage.tokens_per_run != 1:
                out.append(f"slots:      {usage.tokens_per_run:.2f} tokens per run of the program, {name}")
        if self.share is not None:
            out.append(f"memory:     {self.share:.1%} of what it can deliver went into weights, norms and embedding")
        if self.stalls():
            causes = ", ".join(f"{name} {value:.1%}" for name, value in self.stalls().items())
            out.append(f"stalls:     {causes} of the cycles")
        lost = {"frames_bad": "damaged", "frames_lost": "lost"}
        if self.counters["line_errors"]:
            out.append(f"line:       {self.counters['line_errors']} bytes lost to breaks and noise")
        if broken := [f"{self.counters[key]} {word}" for key, word in lost.items() if self.counters[key]]:
            out.append(f"link:       frames {', '.join(broken)} and sent again")
        return out
