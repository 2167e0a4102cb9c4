"""Known answers: made when an image is, and run on a device before it is trusted."""

from sterna.host.errors import HostError, UsageError
from sterna.host.model.answer import make_answer
from sterna.host.runtime.sampling import Sampling
from sterna.sim.cpu.build import kernels
from sterna.sim.cpu.model import CpuModel, usable_threads
from sterna.sim.golden.compiler import ToolError
from sterna.sim.golden.model import GoldenModel


class SelfTestError(HostError):
    """A device that does not give the known answer of an image."""


def answering(tell=lambda line: None, progress=lambda done, total: None):
    """What makes known answers here; settled before a model is packed, since that may take long.

    The kernels of this machine's processor make them, where they can be compiled, or the golden model. Both give the
    same; the golden model takes minutes where the kernels take seconds.

    Parameters
    ----------
    tell : callable(str)
        Takes a line about what is not as it should be.
    progress : callable(done, total)
        Told about the layers that the kernels have loaded.

    Returns
    -------
    callable(PackedModel, int) -> Answer or None
        Takes the token that begins a text too. None: there is not enough memory.

    Raises
    ------
    ThreadsError
    """
    threads, compiled = usable_threads(), True
    try:
        kernels()
    except (ToolError, OSError):
        compiled = False
        tell("the kernels of --device cpu cannot be compiled here, so the golden model makes the known answer: that "
             "takes minutes for a large model, --no-answer leaves it out")

    def answer(packed, start):
        progress(0, 1)
        size = packed.geometry.vocab_size
        try:
            if not compiled:
                return make_answer(GoldenModel(packed), size, start)
            model = CpuModel(packed, threads, progress=progress)
            try:
                return make_answer(model, size, start)
            finally:
                model.close()
        except MemoryError:
            tell("the memory is too small to compute a known answer: the image has none")
            return None

    return answer


def known_answer(packed, start):
    """The Answer of a PackedModel and of the token that begins a text, see `answering`."""
    return answering()(packed, start)


def name_of(run):
    """What a Run of an Answer is, for people (str)."""
    if not run.temperature:
        return "greedy"
    return "top-k/p" if run.top_k else "sampled"


def answers(runtime, answer):
    """Runs a known answer; the runtime's text is lost.

    Parameters
    ----------
    runtime : Runtime
    answer : Answer

    Yields
    ------
    (name, wanted, got) : (str, list of int, list of int)
        Tokens of each run that the device can make: one with a list longer than its own is left out.
    """
    for run in answer.runs:
        sampling = Sampling(run.temperature, run.seed, run.top_k, run.top_p)
        if sampling.limited and run.top_k > runtime.rows:
            continue
        runtime.clear()
        yield name_of(run), list(run.tokens), list(runtime.generate(list(answer.prompt), len(run.tokens), sampling))
    runtime.clear()


def difference(wanted, got):
    """(number, expected, made) of the first token of ``got`` that is not the one of ``wanted``, or None.

    A token that is not there at all is None.
    """
    for k in range(max(len(wanted), len(got))):
        one, other = (tokens[k] if k < len(tokens) else None for tokens in (wanted, got))
        if one != other:
            return k, one, other
    return None


def check_answer(model, option="--self-test"):
    """UsageError if a Model has no known answer."""
    if model.answer is None:
        what = "no image" if model.image is None else "an image without a known answer"
        raise UsageError(f"{option}: {model.path} is {what}: make one that has it with sterna convert {model.path} "
                         "-o FILE")


def self_test(runtime):
    """Runs the known answer of a runtime's image; then the runtime stands as at its start.

    Returns
    -------
    int
        Tokens that were compared.

    Raises
    ------
    SelfTestError
        A token differs.
    """
    answer, compared = runtime.model.answer, 0
    for name, wanted, got in answers(runtime, answer):
        if found := difference(wanted, got):
            k, one, other = found
            at = f"token {k + 1} of {len(wanted)} (position {len(answer.prompt) + k})"
            raise SelfTestError(f"self-test: {runtime.label}: {name}, {at} is {other}, the image's known answer has "
                                f"{one}: what this device makes is not to be trusted")
        compared += len(wanted)
    runtime.restart()
    return compared
