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
    (run, wanted, got) : (Run, list of int, list of int or None)
        Tokens of each run; None of one that the device cannot make, as its list is shorter.
    """
    for run in answer.runs:
        sampling = Sampling(run.temperature, run.seed, run.top_k, run.top_p)
        if sampling.limited and run.top_k > runtime.rows:
            yield run, list(run.tokens), None
            continue
        runtime.clear()
        yield run, list(run.tokens), list(runtime.generate(list(answer.prompt), len(run.tokens), sampling))
    runtime.clear()


def why_not(run, rows):
    """Why a device with a list of ``rows`` rows does not make a Run (str)."""
    return f"it takes a list of {run.top_k} rows and this device has {rows or 'none'}"


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
    str
        A line that says how many tokens were compared.

    Raises
    ------
    SelfTestError
        A token differs, or there was none that this device could be asked for.
    """
    answer, compared, left = runtime.model.answer, 0, []
    for run, wanted, got in answers(runtime, answer):
        if got is None:
            left.append(f"{name_of(run)}: {why_not(run, runtime.rows)}")
        elif found := difference(wanted, got):
            k, one, other = found
            at = f"token {k + 1} of {len(wanted)} (position {len(answer.prompt) + k})"
            raise SelfTestError(f"self-test: {runtime.label}: {name_of(run)}, {at} is {other}, the image's known "
                                f"answer has {one}: what this device makes is not to be trusted")
        else:
            compared += len(wanted)
    runtime.restart()
    total = sum(len(run.tokens) for run in answer.runs)
    if not compared:
        raise SelfTestError(f"self-test: {runtime.label}: none of the {total} tokens of the image's known answer can "
                            f"be compared ({'; '.join(left)}): convert the checkpoint again, or leave the test out")
    if left:
        return (f"self-test: {compared} of {total} tokens compared: they are the image's known answer; not compared: "
                + "; ".join(left))
    return f"self-test: {compared} tokens as the image's known answer"
