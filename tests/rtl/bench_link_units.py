"""Leaf units of the link: checksum, COBS decoder, transmitter, against the host's libraries."""

import os

import cocotb
import crc32c
from bench import cycles, rng, settled, start
from cobs import cobs
from streams import StreamDriver, StreamMonitor

STALL = float(os.environ.get("STALL", "0"))


def random_body(random):
    n = random.choice([1, 2, 7, 11, 60, 231, random.randrange(1, 232)])
    zeros = random.choice([0.0, 0.1, 0.5, 1.0])
    return bytes(0 if random.random() < zeros else random.randrange(1, 256) for _ in range(n))


@cocotb.test(skip="crc" not in os.environ.get("UNIT", ""), timeout_time=5, timeout_unit="ms")
async def checksum(dut):
    random = rng("crc")
    dut.clear.value = dut.valid.value = dut.shift.value = dut.data.value = 0
    await start(dut)
    for _ in range(50):
        message = random.randbytes(random.randrange(1, 40))
        dut.clear.value = 1
        await cycles(dut)
        dut.clear.value = 0
        for byte in message:
            while random.random() < STALL:
                dut.valid.value, dut.data.value = 0, random.randrange(256)
                await cycles(dut)
            dut.valid.value, dut.data.value = 1, byte
            await cycles(dut)
        dut.shift.value = 1
        seen = bytearray()
        for _ in range(4):
            dut.data.value = random.randrange(256)
            await settled(dut)
            seen.append(int(dut.checksum.value) & 0xFF)
            await cycles(dut)
        dut.shift.value = dut.valid.value = 0
        assert int.from_bytes(seen, "little") == crc32c.crc32c(message)


@cocotb.test(skip="decoder" not in os.environ.get("UNIT", ""), timeout_time=5, timeout_unit="ms")
async def decoder(dut):
    random = rng("decoder")
    line, wanted = bytearray(), []
    for _ in range(80):
        line += bytes(random.randrange(3))
        code = bytearray(cobs.encode(random_body(random)))
        if random.random() < 0.3:
            if random.random() < 0.5:
                del code[random.randrange(len(code)):]
            else:
                code[random.randrange(len(code))] = random.randrange(1, 255)
        if code:
            try:
                wanted.append(cobs.decode(bytes(code)))
            except cobs.DecodeError:
                wanted.append(None)
        line += code + b"\0"
    driver = StreamDriver(dut, "rx", stall=STALL)
    await start(dut)
    driver.send(*line)
    frames, part = [], bytearray()
    while len(frames) < len(wanted):
        await settled(dut)
        assert int(dut.rx__ready.value) == 1
        assert not (int(dut.valid.value) and int(dut.end.value))
        if int(dut.valid.value):
            part.append(int(dut.data.value))
        if int(dut.end.value):
            frames.append(None if int(dut.broken.value) else bytes(part))
            part.clear()
        await cycles(dut)
    assert frames == wanted


@cocotb.test(skip="transmitter" not in os.environ.get("UNIT", ""), timeout_time=20, timeout_unit="ms")
async def transmitter(dut):
    random = rng("transmitter")
    dut.restart.value = dut.finish.value = dut.silent.value = 0
    body = StreamDriver(dut, "body", stall=STALL)
    monitor = StreamMonitor(dut, "tx", stall=STALL)
    await start(dut)
    wanted = []
    for _ in range(40):
        frame = random_body(random)
        if random.random() < 0.2:  # begin another frame and throw it away
            body.send(*random_body(random))
            await body.drain()
            dut.restart.value = 1
            await cycles(dut)
            dut.restart.value = 0
        if random.random() < 0.3:  # bytes that are only summed, from a fresh start
            hashed = random_body(random)
            dut.silent.value = 1
            body.send(*hashed)
            await body.drain()
            dut.silent.value = 0
            await settled(dut)
            assert int(dut.checksum.value) == crc32c.crc32c(hashed)
            await cycles(dut)
            dut.restart.value = 1
            await cycles(dut)
            dut.restart.value = 0
        body.send(*frame)
        await body.drain()
        dut.finish.value = 1
        finished = 0
        while not finished:
            await settled(dut)
            finished = int(dut.finished.value)
            await cycles(dut)
        dut.finish.value = 0
        wanted += cobs.encode(frame + crc32c.crc32c(frame).to_bytes(4, "little")) + b"\0"
    assert bytes(await monitor.receive(len(wanted))) == bytes(wanted)
    await cycles(dut, 20)
    assert len(monitor.items) == len(wanted)
