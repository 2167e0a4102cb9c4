"""Prompts of ``sterna generate``."""

import sys
from contextlib import nullcontext

from sterna.host.errors import HostError, UsageError
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
