"""Runs on the accelerator: the model in a device's memory, one text in all its slots, or several side by side."""

import time
from contextlib import ExitStack, closing

import numpy as np

from sterna.firmware.program import build_program
from sterna.host.device.run import Slots, stop_tokens
from sterna.host.device.upload import upload, verify
from sterna.host.errors import DeviceError, HostError
from sterna.host.runtime.runtime import Runtime, untold
from sterna.host.runtime.sampling import check_end, check_length, propose
from sterna.hw import protocol
from sterna.hw.protocol import Register
from sterna.sim.golden import fp24

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
        device.reset()
        self.uploaded = None
        if not loaded:
            self.uploaded = upload(device, self._image.regions(info), compare=not fresh,
                                   progress=self._watched(progress, "uploading"))
        device.load_program(program.words)
        for slot in device.slots:
            device.write_scalars(program.scalars, slot)

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
        registers |= {Register.LIMIT: limit, Register.CONTROL: protocol.CONTROL_RUN}
        for register, value in registers.items():
            self.device.write_register(register, value)

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
        return [] if ended else list(map(self._known, self.device.read_ring(len(self.tokens), count)))

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

    def generate_all(self, sequences, cancelled=lambda: False):
        # Drafts need the slots for one text; so do the two others for a single one.
        if not self._chained or self.draft or len(sequences) == 1:
            yield from super().generate_all(sequences, cancelled)
            return
        settled = {sequence: sequence.sampling.within(self.rows) for sequence in sequences}
        for sequence in sequences:
            self.check(sequence.ids)
            self.check_text(len(sequence.ids) + sequence.n, sequence.stop)
        self.clear()
        figures, started = self.statistics, time.monotonic()
        figures.together += len(sequences)

        def start(sequence, slot):
            figures.prompt_tokens += len(sequence.ids) - 1
            return self.device.start(sequence.ids, sequence.n, slot=slot, stop=sequence.stop,
                                     **self._options(settled[sequence]))

        def count():
            if time.monotonic() - self._sampled_at > COUNTERS_EVERY_S:
                self._count(figures.counters)

        slots = Slots(self.device, start)
        self.device.chain(False)
        self._begin_count()
        try:
            for sequence, token in slots.run(sequences, lambda s: s.closed or not s.n or cancelled(), count):
                if token is not None:
                    sequence.tokens.append(self._known(token))
                    figures.tokens += 1
                yield sequence, token
        except HostError:
            raise  # as in Device.run
        except BaseException:
            slots.stop()
            self._count(figures.counters, slots.positions)
            raise
        finally:
            figures.seconds += time.monotonic() - started
        self._count(figures.counters, slots.positions)

    def _vectors(self):
        """Arguments of the device's methods for the text's state (dict)."""
        return {"slot": self._source, "layer_bytes": self._map.layer_state_bytes}

    def _values(self):
        geometry, where = self.model.geometry, self._map
        size = geometry.num_hidden_layers * self.device.info.batch * where.layer_state_bytes
        raw = np.frombuffer(self.device.read_state(where.state_address, size, **self._vectors()), "<u4")
        return fp24.from_bits(raw.reshape(geometry.num_hidden_layers, -1)[:, :geometry.hidden_size])

    def _set_values(self, values):
        where = self._map
        layers = np.zeros((len(values), where.layer_state_bytes // 4), "<u4")
        layers[:, :values.shape[1]] = fp24.to_bits(values)
        for slot in self.device.slots:
            self.device.halt(slot)
        self.device.write_state(where.state_address, layers.tobytes(), **self._vectors())
