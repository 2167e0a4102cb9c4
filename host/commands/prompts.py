"""Prompts of ``sterna generate``, and several texts at once."""

import sys
from contextlib import nullcontext

from sterna.host.console import show
from sterna.host.errors import HostError, UsageError
from sterna.host.model.text import TextStream
from sterna.host.runtime.runtime import Sequence
from sterna.models.data import lines_of, text_of

PROMPT_BYTES = 1 << 22  # of -f: more than any context holds


def read_text(file):
    """The text of a file, - being standard input; HostError if it is too large, unreadable, or no UTF-8."""
    try:
        with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as source:
            data = source.read(PROMPT_BYTES + 1)
        if len(data) > PROMPT_BYTES:
            raise HostError(f"the prompt {file} has more than {PROMPT_BYTES:,} bytes: shorten it")
        return text_of(data)
    except OSError as error:
        raise HostError(f"cannot read the prompt {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise HostError(f"{file} is not UTF-8 (byte {error.start}): convert it, with iconv for instance") from None


def read_prompts(prompts, file, lines):
    """The prompts of -p, -f or --prompts (list of str, none of them empty); empty if none of these was given."""
    given = [name for name, value in (("-p", prompts), ("-f", file), ("--prompts", lines)) if value]
    if len(given) > 1:
        raise UsageError(f"both {given[0]} and {given[1]} give a prompt: use one of them")
    out = list(prompts)
    if file is not None:
        out = [read_text(file)]
    if lines is not None:
        out = lines_of(read_text(lines))
        if not out:
            raise HostError(f"{lines} holds no prompt: give one per line")
    if "" in out:
        raise HostError("the prompt is empty: give some text with -p or -f")
    return out


class InOrder:
    """Shows texts that grow at the same time one after the other, each as far as it has come, a blank line between.

    Parameters
    ----------
    count : int
        Number of texts.
    """

    def __init__(self, count):
        self._waiting, self._over, self._shown = [[] for _ in range(count)], [False] * count, 0

    def push(self, number, piece):
        """A piece of a text, by its number."""
        self._waiting[number].append(piece)
        self._show()

    def end(self, number):
        """No more comes for a text."""
        self._waiting[number].append("\n" if number + 1 == len(self._over) else "\n\n")
        self._over[number] = True
        self._show()

    def _show(self):
        while self._shown < len(self._over):
            pieces = self._waiting[self._shown]
            if pieces:
                show("".join(pieces))
                pieces.clear()
            if not self._over[self._shown]:
                return
            self._shown += 1


def run_several(runtime, texts, sampling, stops, ignore_end, display_prompt, cancelled):
    """Show what follows several prompts, side by side where the device has slots.

    Parameters
    ----------
    runtime : Runtime
    texts : list of (prompt, token ids, most tokens to make)
    sampling : Sampling
        Of all of them.
    stops : sequence of str
    ignore_end, display_prompt : bool
    cancelled : callable() -> bool
    """
    model, output = runtime.model, InOrder(len(texts))
    ends = () if ignore_end else model.ends
    streams, numbers = [], {}
    for number, (prompt, ids, n) in enumerate(texts):
        numbers[Sequence(list(ids), n, sampling, ends)] = number
        streams.append(TextStream(model.vocabulary, stops))
        if display_prompt:
            output.push(number, prompt)
    for sequence, token in runtime.generate_all(list(numbers), cancelled):
        number = numbers[sequence]
        stream = streams[number]
        if token is None:
            output.push(number, stream.finish())
            output.end(number)
        elif token not in ends:
            output.push(number, stream.push(token))
            sequence.closed |= stream.stopped
