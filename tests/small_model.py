"""A small random checkpoint with a byte tokenizer, and a device in plain Python that runs it."""

import contextlib
import dataclasses
import json
import socket
import threading

import numpy as np
import tokenizers
from fake_device import INFO, FakeDevice
from faults import SEED
from safetensors.numpy import save_file
from sterna.firmware.layout import memory_map
from sterna.host.device.run import LN2_BITS
from sterna.hw.protocol import Register
from sterna.sim.golden import fp24
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import Geometry, random_tensors

GEOMETRY = Geometry(40, 48, 2, 264)
DEVICE = dataclasses.replace(INFO, rows=2, columns=20, lanes=4, port_bytes=8, strip=32, memory_bytes=1 << 18,
                             vector_words=2048, activation_words=512, program_words=512, ring=64, clock_hz=80_000_000,
                             credits=4)
SLOTS = dataclasses.replace(DEVICE, batch=4, top_k=16)
CYCLES_PER_TOKEN, REFRESH_PER_TOKEN = 2500, 100  # of a run of the program


def byte_tokenizer():
    """Text of tokenizer.json: id 0 is <|endoftext|>, the 256 bytes follow."""
    pieces = ["<|endoftext|>", *sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({p: k for k, p in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer.to_str()


def write_folder(folder, variant=0):
    """A checkpoint folder; another variant has other weights."""
    folder.mkdir(parents=True)
    save_file(random_tensors(np.random.default_rng([SEED, variant]), GEOMETRY), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(
        dataclasses.asdict(GEOMETRY) | {"model_type": "hgrn_bit", "eos_token_id": 0}))
    (folder / "tokenizer.json").write_text(byte_tokenizer())
    return folder


class GoldenDevice(FakeDevice):
    """The fake device with the golden model in it; state and counters as on the accelerator."""

    def __init__(self, packed, info=DEVICE, **options):
        super().__init__(info, **options)
        self.golden = GoldenModel(packed)
        self.map = memory_map(info, packed.geometry, check=False)

    def _layers(self, slot):
        geometry, size, batch = self.golden.geometry, self.map.layer_state_bytes, self.info.batch
        base = [self.map.state_address + (k * batch + slot) * size for k in range(geometry.num_hidden_layers)]
        return [[at + 4 * j for j in range(geometry.hidden_size)] for at in base]

    def zero_state(self):
        return self.golden.start(1)

    def load_state(self, slot):
        bits = np.array([[self.memory[at] for at in layer] for layer in self._layers(slot)], np.uint32)
        return fp24.from_bits(bits)[:, None]

    def store_state(self, slot, state):
        for addresses, values in zip(self._layers(slot), fp24.to_bits(state[:, 0]).tolist(), strict=True):
            self.memory.update(zip(addresses, values, strict=True))

    def step(self, token, state):
        state = state.copy()
        return self.golden.step([token], state), state

    def sample(self, head, position, slot):
        block = self.blocks[slot]
        lane = (position - self.block[Register.POSITION]) if self.chained else slot
        scalars = self.scalars_of[lane]
        scale = float(fp24.from_bits(np.array([scalars[2]], np.uint32))[0])
        sampled = block[Register.FLAGS] & 1
        # The program of several slots takes a greedy one as a sampled one whose noise counts nothing.
        assert scalars[13] == (LN2_BITS if sampled else 0) and (sampled or scale == 1), scalars
        k, p = block[Register.TOP] & 0xFF, block[Register.TOP] >> 16
        assert k <= self.info.top_k
        temperature = 1 / scale if sampled else 0.0
        return int(self.golden.sample(head, block[Register.SEED], position, temperature, k, p / 65536 or 1.0)[0])

    def count(self):
        for offset, step in ((0x80, CYCLES_PER_TOKEN), (0x98, REFRESH_PER_TOKEN), (0x8C, 50)):
            self.block[offset] = self.block[offset] + step & 0xFFFFFFFF


@contextlib.contextmanager
def served(device, greeting=lambda: b""):
    """URL of a device behind a socket; one connection after the other. ``greeting`` gives what is sent first."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def serve():
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(0.002)
                greeted = False
                while not ended.is_set():
                    try:
                        data = connection.recv(4096)
                        if not data:
                            break
                        if not greeted:
                            connection.sendall(greeting())
                        greeted = True
                        device.write(data)
                    except TimeoutError:
                        pass
                    except OSError:
                        break
                    try:
                        connection.sendall(device.read(0))
                    except OSError:
                        break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"socket://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        thread.join()
        listener.close()
