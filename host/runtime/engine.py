"""Text out of a runtime: prompts with their limits, ends and stop strings in, pieces of text out."""

from contextlib import closing
from dataclasses import dataclass

from sterna.host.model.text import TextStream
from sterna.host.runtime.runtime import RunError, Sequence
from sterna.host.runtime.sampling import UNLIMITED, Sampling


@dataclass(frozen=True, eq=False)
class Request:
    """A text to be made.

    Attributes
    ----------
    ids : list of int
        Tokens to read first; may be empty where a text is under way.
    n : int
        Tokens to make at most.
    sampling : Sampling
    stops : sequence of str
        The text ends before the first of these.
    ignore_end : bool
        Go on behind the end of a text.
    """

    ids: list
    n: int
    sampling: Sampling
    stops: tuple = ()
    ignore_end: bool = False


def room_for(length, predict, context):
    """Tokens that may be made behind ``length`` others.

    Parameters
    ----------
    length : int
    predict : int
        Tokens to make, -1: until the text ends.
    context : int
        Most tokens of the whole text; 0: no limit.

    Raises
    ------
    RunError
        ``length`` alone is more than ``context``.
    """
    limit = predict if predict >= 0 else UNLIMITED
    if not context:
        return limit
    if length > context:
        raise RunError(f"the text has {length} tokens already, more than --ctx-size {context}: shorten it or raise "
                       "--ctx-size")
    return min(limit, context - length)


class Engine:
    """Makes texts on a runtime. It prints nothing; whoever takes the pieces shows them.

    Parameters
    ----------
    runtime : Runtime
        Already holding a text, if one is to be gone on with.
    """

    def __init__(self, runtime):
        self.runtime = runtime
        self.vocabulary = runtime.model.vocabulary

    def text(self, request, *, exact=False, cancelled=lambda: False, progress=lambda done, total: None):
        """Goes on with the runtime's text; yields pieces of text (str) as they become certain.

        Closing the generator leaves the runtime at rest. Without it, behind the last piece, the runtime's tokens are
        those that were read and made; with stop strings they may be ahead of the text, unless ``exact``.

        Parameters
        ----------
        request : Request
        exact : bool
            The runtime's state must not be ahead of a stop string: a device then makes one token at a time.
        cancelled : callable() -> bool
            Asked between tokens; True ends the text.
        progress : callable(done, total)
            Told about the reading of the prompt, in tokens.

        Raises
        ------
        RunError, UsageError
            As ``Runtime.generate``.
        TextError
            An empty stop string.
        """
        stream = TextStream(self.vocabulary, request.stops)
        ends = self._ends(request)
        left, ids = request.n, list(request.ids)
        if left == 0 and ids:
            for _ in self.runtime.generate(ids, 0, request.sampling, ends, cancelled, progress):
                pass
        ended = False
        while left > 0 and not ended and not stream.stopped and not cancelled():
            count = 1 if exact and request.stops else left
            with closing(self.runtime.generate(ids, count, request.sampling, ends, cancelled, progress)) as tokens:
                for token in tokens:
                    ended = token in ends
                    if not ended:
                        yield stream.push(token)
                    if stream.stopped:
                        break
            left, ids = left - count, []
        yield stream.finish()

    def texts(self, requests, *, cancelled=lambda: False):
        """Texts of their own, side by side where the device has slots, each from an empty state.

        Parameters
        ----------
        requests : list of Request
        cancelled : callable() -> bool
            Asked between tokens; True ends all texts.

        Yields
        ------
        (number, piece) : (int, str or None)
            A piece of the text of a request, by its number; None when that text has ended.
        """
        numbers, streams = {}, []
        for number, request in enumerate(requests):
            sequence = Sequence(list(request.ids), request.n, request.sampling, self._ends(request))
            numbers[sequence] = number
            streams.append(TextStream(self.vocabulary, request.stops))
        for sequence, token in self.runtime.generate_all(list(numbers), cancelled):
            number = numbers[sequence]
            stream = streams[number]
            if token is None:
                yield number, stream.finish()
                yield number, None
            elif token not in sequence.stop:
                yield number, stream.push(token)
                sequence.closed |= stream.stopped

    def _ends(self, request):
        """Tokens that end a text (tuple of int)."""
        return () if request.ignore_end else self.runtime.model.ends
