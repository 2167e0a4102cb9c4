"""Runs on the accelerator: the model in a device's memory, one text in all its slots, or several side by side."""

import time
from contextlib import ExitStack, closing

import numpy as np

from sterna.firmware.program import build_program
from sterna.host.device.run import stop_tokens
from sterna.host.device.slots import Slots
from sterna.host.device.upload import upload, verify
from sterna.host.errors import DeviceError
from sterna.host.runtime.runtime import Runtime, untold
from sterna.host.runtime.sampling import check_end, check_length, propose
from sterna.hw import protocol
from sterna.hw.config import longest_text
from sterna.hw.protocol import Register
from sterna.sim.golden import fp24

WITNESS = 0x5EED5EED
COUNTERS_EVERY_S = 5.0  # the counters have 32 bits, which 200 MHz fill in 21 s


class DeviceRuntime(Runtime):
    """A model on a device.

    With several slots they are chained for the text under way, and independent for ``generate_all``.

    Parameters
    ----------
    model : Model
    device : Device
        Closed by ``close``.
    tell : callable(str)
        Takes lines of information.
    simulated : bool
        The device's cycles are simulated ones; so are those of a device that says so.
    loaded : bool
        The model lies in the device's memory already.
    progress : callable(what, done, total)
        Told about the upload, in bytes.
    fresh : bool
        The memory holds nothing yet; otherwise what it holds is compared, and only what differs is sent.

    Attributes
    ----------
    uploaded : Upload or None
        What was sent.
    board : SimulatedBoard or None
        What computes, if it was started for this runtime.
    waves : sterna.host.waves.Recording or None
        What that board records.

    Raises
    ------
    ImageError, ProgramError, DeviceError
        The model does not fit the device, or the device fails.
    """

    piece_tokens = 64  # of a prompt, read in one run
    board = waves = None
    near = False

    def __init__(self, model, device, tell, *, simulated=False, loaded=False, fresh=False, progress=untold):
        super().__init__(model)
        self.device, info = device, device.info
        self.resources = ExitStack()  # what close ends besides the device
        self.statistics.config, self.statistics.simulated = info, simulated or device.simulated
        self._image = model.image_for(info, tell)
        program = build_program(info, model.geometry)
        self._map = program.memory_map
        self.label = f"{device.name}: {model.name} on {info.rows} x {info.columns}, {info.lanes} lanes"
        self.label += ", simulated" * self.statistics.simulated
        self.rows, self._chained = info.top_k, info.batch > 1
        self._source = 0  # the slot whose region holds the text's state
        for slot in device.slots:
            device.halt(slot)
            device.write_register(Register.POSITION, 1, slot)
        device.reset()
        self.uploaded = None
        if not loaded:
            self.uploaded = upload(device, self._image.regions(info), compare=not fresh,
                                   progress=self._watched(progress, "uploading"))
        device.load_program(program.words)
        for slot in device.slots:
            device.write_scalars(program.scalars, slot)
            device.halt(slot)  # a restart since then is seen

    def wake(self):
        # Once there has been a run the count of runs tells of a restart; until then a seed that nothing writes.
        device = self.device
        if self.statistics.simulated:
            return
        if self._chained:
            device.chain(False)
        device.write_register(Register.SEED, WITNESS)
        device.halt()
        device.write_ring(0, [self.model.end])
        for register, value in {Register.POSITION: 0, Register.START: 0, Register.PROMPT_END: 2,
                                Register.STOP: protocol.NEVER, Register.LIMIT: 1}.items():
            device.write_register(register, value)
        before = device.read_register(Register.SEED)
        device.enable([0])
        device.await_position(0, 1)
        device.halt()
        counted = device.check_life()  # 0: there are no counters, and no seed can be read
        if counted and before != WITNESS or device.read_register(Register.SEED) != before:
            raise DeviceError(f"{device.name}: the device was restarted: load the model again")

    def verify(self, progress=untold):
        """Compare the device's hashes of the model with the image; DeviceError at the first difference."""
        verify(self.device, self._image.regions(self.device.info), self._watched(progress, "verifying"))

    def _watched(self, progress, what):
        """``progress`` of ``what``, which also ends it if the image's file is written meanwhile."""
        def told(done, total):
            self._image.check_unchanged()
            progress(what, done, total)
        return told

    def check_text(self, tokens, stop):
        check_length(self.device.info, tokens)
        for end in stop_tokens(stop):
            check_end(self.device.info, end)

    @property
    def longest(self):
        return longest_text(self.device.info)

    @property
    def model_bytes(self):
        return len(self._image.data)

    def close(self):
        self.device.close()
        self.resources.close()

    def _start(self, position, limit, prompt_end):
        registers = {Register.POSITION: position, Register.START: position if position == 0 else protocol.NEVER,
                     Register.PROMPT_END: prompt_end, Register.STOP: protocol.NEVER}
        if self._chained:
            registers |= {Register.DRAFT_END: 0, Register.SOURCE: self._source}
        for register, value in (registers | {Register.LIMIT: limit}).items():
            self.device.write_register(register, value)
        self.device.enable([0])

    def _rest(self):
        """The device comes to rest and tells where it is: (position, slot of the state)."""
        position = self.device.halt()
        if self._chained:
            self._source = self.device.read_register(Register.SOURCE)
            if self._source not in self.device.slots:
                raise DeviceError(f"{self.device.name}: reports the state in slot {self._source} of "
                                  f"{len(self.device.slots)}: reset the board, then start again")
        return position

    def over(self):
        """Whether the waveforms have reached their limit, or a simulated board has said that something is wrong."""
        return self.waves is not None and (self.waves.reached() or bool(self.board.complaint()))

    def _record(self, position, most):
        """Lets the waveforms pause or go on for the tokens from ``position`` on.

        Returns how many of ``most`` tokens (int) may be run before that changes.
        """
        if self.waves is None or self.waves.whole:
            return most
        self.board.record(self.waves.wanted(position))
        return min(most, self.waves.room(position) or most)

    def _read(self, tokens, cancelled):
        # In pieces that end with the device at rest, so that the counters tell reading from making exactly.
        done, size = 0, max(1, min(self.device.info.ring // 2, self.piece_tokens))
        self.device.chain(self._chained)
        self.device.halt()
        if tokens:
            self._begin_count()
        while done < len(tokens) and not cancelled():
            first = self.position
            piece = tokens[done:done + self._record(first, size)]
            self.device.write_ring(first, piece)
            # An output is wanted only behind prompt_end, which lies beyond this piece.
            self._start(first, first + len(piece), first + len(piece) + 1)
            self.device.await_position(first, first + len(piece))
            self._rest()
            self._count(self.statistics.prompt_counters, len(piece))
            done += len(piece)
            yield done

    @staticmethod
    def _options(sampling):
        """Arguments of ``Device.start`` (dict)."""
        return {"seed": sampling.seed, "sample": sampling.temperature > 0, "top": sampling.top_bits,
                "inverse_temperature_bits": sampling.inverse_temperature_bits or None}

    def _chain_options(self, text):
        """The same for the text under way, ``text`` as far as it is known."""
        draft = (lambda count: propose(text, min(count, self.draft))) if self.draft else None
        return {"chained": True, "source": self._source, "draft": draft} if self._chained else {}

    def _make(self, token, n, sampling, stop, cancelled):
        while n and not cancelled():
            part, made = self._record(self.position, n), 0
            with closing(self._run(token, part, sampling, stop, cancelled)) as tokens:
                for token in tokens:
                    made += 1
                    yield token
            n -= made
            if made < part or token in stop_tokens(stop):
                return

    def _run(self, token, n, sampling, stop, cancelled):
        """Reads a token and makes ``n`` others without a stop of the device; see ``Runtime``."""
        self._begin_count()
        begin, text, stops = self.position, list(self.tokens), stop_tokens(stop)
        run = self.device.run([token], n, stop=stop, start_position=begin, reset_state=begin == 0,
                              **self._options(sampling), **self._chain_options(text))
        ended = False
        try:
            with closing(run):
                for _, token in run:
                    ended = token in stops
                    text.append(self._known(token))
                    yield token
                    if time.monotonic() - self._sampled_at > COUNTERS_EVERY_S:
                        self._count(self.statistics.counters)
                    if cancelled():
                        break
        except GeneratorExit:
            # The caller has seen enough, at a stop string for instance; the device has gone further.
            self.tokens += self._behind(begin, n, ended)
            raise
        # After Ctrl-C too the device may have gone further, and its state is that of the last token it read.
        behind = self._behind(begin, n, ended)
        try:
            while behind:
                yield behind.pop(0)
        finally:
            self.tokens += behind  # what nobody wanted to see

    def _behind(self, begin, n, ended):
        """Tokens that the device, now at rest, has made beyond ``tokens``: none behind a stop token."""
        position = self._rest()
        count = position + 1 - len(self.tokens)
        if position > begin + n or not (0 <= count <= self.device.info.ring or ended):
            raise DeviceError(f"{self.device.name}: reports position {position} and was at {self.position}: "
                              "reset the board, then start again")
        self._count(self.statistics.counters, position - begin)
        if ended or not count:
            return []
        tokens = self.device.read_ring(len(self.tokens), count)
        self.device.check_life()  # behind a restart the ring holds anything
        return list(map(self._known, tokens))

    def _known(self, token):
        """A token from the device; DeviceError unless the model has it."""
        if token >= self.model.geometry.vocab_size:
            raise DeviceError(f"{self.device.name}: made token {token}, and the model has "
                              f"{self.model.geometry.vocab_size}: reset the board, then start again")
        return token

    def _begin_count(self):
        self._before, self._sampled_at = self.device.counters(), time.monotonic()

    def _count(self, sums, tokens=0):
        """Add what the counters have moved since the last time, which wrap, and the tokens of that, once known."""
        before = self._before
        self._begin_count()
        sums.update({name: (value - before[name]) % (1 << 32) for name, value in self._before.items()})
        sums["tokens"] += tokens

    @property
    def slots(self):
        # Drafts need the slots for one text.
        return self.device.info.batch if self._chained and not self.draft else 1

    def beside(self):
        return _Beside(self)

    def _vectors(self, slot):
        """Arguments of the device's methods for a slot's state (dict)."""
        return {"slot": self._source if slot is None else slot, "layer_bytes": self._map.layer_state_bytes}

    def _values(self, slot=None):
        geometry, where = self.model.geometry, self._map
        size = geometry.num_hidden_layers * self.device.info.batch * where.layer_state_bytes
        raw = np.frombuffer(self.device.read_state(where.state_address, size, **self._vectors(slot)), "<u4")
        self.device.check_life()  # behind a restart the memory holds anything
        return fp24.from_bits(raw.reshape(geometry.num_hidden_layers, -1)[:, :geometry.hidden_size])

    def _set_values(self, values, slot=None):
        where = self._map
        layers = np.zeros((len(values), where.layer_state_bytes // 4), "<u4")
        layers[:, :values.shape[1]] = fp24.to_bits(values)
        if slot is None:
            for k in self.device.slots:
                self.device.halt(k)
        self.device.write_state(where.state_address, layers.tobytes(), **self._vectors(slot))


class _Beside:
    """Texts side by side in the slots of a device, see ``Runtime``."""

    def __init__(self, runtime):
        self._runtime, self._device = runtime, runtime.device
        self._device.chain(False)
        self._slots = Slots(self._device, self._start, self._held, self._over)
        self._ended = {}  # Run, and what it made that nobody was told, by text
        runtime._begin_count()

    def enter(self, text, state):
        slot = self._slots.free[0]
        if state is not None and text.position:
            self._runtime._set_values(state.values, slot)
        self._take(text, slot)

    def adopt(self, text):
        self._take(text, self._runtime._source)

    def _take(self, text, slot):
        self._slots.enter(text, slot)
        figures = self._runtime.statistics
        figures.together += 1
        figures.prompt_tokens += len(text.tokens) - 1 - text.position

    def _start(self, text, slot):
        first = text.position
        run = self._device.start(text.tokens[first:], text.left, slot=slot, stop=text.sequence.stop,
                                 start_position=first, reset_state=not first, **self._runtime._options(text.sampling))
        run.single, run.ended = text.sequence.exact, text.ended
        run.hold = self._next_hold(text)
        return run

    @staticmethod
    def _next_hold(text):
        return text.marks[0] if text.marks else None if text.left else len(text.tokens) - 1

    def _held(self, text, run):
        text.position = run.position
        text.reached(lambda: self._runtime._values(run.slot))
        run.ended = text.ended
        run.hold = self._next_hold(text)

    def _over(self, text, run, tokens):
        self._ended[text] = run, tokens

    def step(self):
        out, runtime = self._slots.step(lambda text: text.sequence.closed), self._runtime
        for text, run in self._slots.runs:
            text.position = run.position
        for text, token in out:
            if token is not None:
                text.made(runtime._known(token))
                continue
            values = self._values_behind(text)
            if values is not None:
                text.sequence.keep(text.state(values))
        if time.monotonic() - runtime._sampled_at > COUNTERS_EVERY_S:
            runtime._count(runtime.statistics.counters)
        return out

    def leave(self, text):
        self._slots.leave(text)
        tokens = self._ended[text][1]
        return tokens, self._values_behind(text, leaving=True)

    def _values_behind(self, text, leaving=False):
        """Values of a text whose slot is at rest, if its state is wanted; it has all tokens then."""
        run, tokens = self._ended.pop(text)
        for token in tokens:
            text.made(self._runtime._known(token))
        text.position = run.position
        return self._runtime._values(run.slot) if run.position and (leaving or text.final) else None

    def close(self):
        self._slots.stop()
        self._runtime._count(self._runtime.statistics.counters, self._slots.positions)
