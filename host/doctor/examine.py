"""All checks in their order: what one of them finds decides whether those behind it make sense."""

from contextlib import suppress

from sterna.firmware.program import build_program
from sterna.host.device.driver import Device
from sterna.host.device.info import ProtocolError
from sterna.host.device.transport import TransportError
from sterna.host.doctor import answer, identity, line, memory
from sterna.host.doctor.check import OK, judged, skipped
from sterna.host.errors import HostError
from sterna.sim.golden.errors import SternaError

SECTIONS = ("versions", "build", "rest", "link", "memory", "tokens", "counters", "clock")  # and "answer" of a model


def guarded(name, checks):
    """The Checks of a generator; a SternaError in it is one more, which failed."""
    try:
        yield from checks
    except SternaError as error:
        yield judged(name, False, str(error))


def examine(connect, *, simulated, wanted=None, where="quick", halt=False, model=None, tell=print):
    """Generator of all Checks of a device.

    Parameters
    ----------
    connect : callable() -> transport
    simulated : bool
        Its time is not that of a clock.
    wanted : Config, optional
        What the device must be.
    where : str
        As ``--memory``.
    halt : bool
        End what the device runs.
    model : Model, optional
        Its known answer is run too.
    tell : callable(str)
        Takes lines of information.
    """
    patience = {"timeout_s": 60.0, "stall_s": 600.0} if simulated else {"timeout_s": 3.0, "stall_s": 30.0}
    try:
        transport = connect()
    except TransportError as error:
        yield judged("port", False, str(error))
        yield from identity.skip_all(SECTIONS, "no port")
        return
    rate = f" at {transport.baud} baud" if transport.baud else ""
    yield judged("port", True, f"{transport.name} is open{rate}")
    try:
        device = Device(transport, tell=tell, **patience)
    except HostError as error:
        name = "versions" if isinstance(error, ProtocolError) else "answer"
        yield judged(name, False, str(error))
        yield from identity.skip_all([s for s in SECTIONS if s != name],
                                     "no device of this software's versions answers")
        return
    with device:
        if device.simulated and not simulated:
            simulated = True
            yield judged("simulated", True, "a simulated board: its cycles take no time of a clock", simulated=True)
        if model and (wrong := _no_room(model, device, tell)):
            yield wrong
            model = None
        yield from identity.identify(device, wanted)
        rest = judged("rest", False, "")
        for rest in guarded("rest", identity.at_rest(device, halt)):
            yield rest
        if rest.verdict != OK:
            yield from identity.skip_all(SECTIONS[3:], "the device is not at rest")
            return
        try:
            yield from _at_work(device, simulated, wanted, where, model, tell)
        finally:
            # Whatever happened, Ctrl-C included: nothing runs any more.
            with suppress(HostError):
                for slot in device.slots:
                    device.halt(slot)


def _at_work(device, simulated, wanted, where, model, tell):
    """The Checks that want the device for themselves, section by section as long as it answers."""
    known = wanted or next((identity.NAMES[name] for name in identity.named(device.info.build)), None)
    keep = where == "none"

    def link():
        yield from line.link_checks(device)
        yield line.no_rates(simulated)

    def contents():
        if keep:
            yield skipped("memory", "--memory none: what is in it stays")
        else:
            yield from memory.memory_checks(device, memory.extent(where, device.info.memory_bytes))

    sections = {"link": link, "memory": contents, "tokens": lambda: _answers(device, simulated, known, keep, tell)}
    if model:
        sections["known answer"] = lambda: _known(device, model, simulated, keep, tell)
    for number, (name, checks) in enumerate(sections.items()):
        if number and not identity.answers(device):
            left = SECTIONS[3 + number:] if name in SECTIONS else [name]
            yield from identity.skip_all(left, "the device does not answer any more")
            return
        yield from guarded(name, checks())


def _no_room(model, device, tell):
    """The failed Check of a Model that the device does not hold, before anything takes minutes; None if it does."""
    try:
        model.image_for(device.info, tell)
        build_program(device.info, model.geometry)
    except SternaError as error:
        return judged("known answer", False, str(error))
    return None


def _known(device, model, simulated, keep, tell):
    with answer.kept(device, model, keep):
        yield from answer.known_checks(answer.open_model(model, device, simulated, tell))


def _answers(device, simulated, known, keep, tell):
    model = answer.BuiltinModel()
    with answer.kept(device, model, keep):
        runtime = answer.open_model(model, device, simulated, tell)
        yield from answer.answer_checks(runtime)
        speed = answer.speed_check(runtime, known)
        yield speed
        if simulated:
            yield skipped("clock", "a simulation has no clock")
        elif not device.transport.baud:
            yield skipped("clock", "behind a socket may be a simulation, which has no clock")
        elif speed.verdict != OK:
            yield skipped("clock", "no cycles to count; that the serial line works shows it to be right within 2 %")
        else:
            yield answer.clock_check(runtime, speed.values["cycles_per_token"])
