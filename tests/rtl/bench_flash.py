"""Bench of FlashBoot against a serial flash that notes what it is told: commands, pauses, and who is heard."""

import os

import cocotb
from bench import cycles, rng, settled
from cocotb.clock import Clock

CLOCK_HZ, OFFSET = int(os.environ.get("CLOCK_HZ", "1")), int(os.environ.get("OFFSET", "0"))
PERIOD_NS = 1e9 / CLOCK_HZ
WAKE, READ = 0xAB, 0x03
T_RES1_NS, T_READ_NS = 3000, 20  # of a W25Q128JV: from 0xAB to the next command; a period of the clock in READ
HEADER = b"STFL" + bytes(4)
BEHIND = 256  # bytes behind the end, or without a delimiter, after which the flash is left


class Board:
    """Flash, transport and accelerator around the device, cycle by cycle.

    ``selections`` has [cycle of its begin, of its end, bits that came]; ``played`` and ``answered`` are the bytes
    that the accelerator and the transport got.
    """

    def __init__(self, dut, content):
        self.dut, self.content = dut, content
        self.selections, self.played, self.answered, self.cycle = [], [], [], 0
        self.clock, self.rises, self.booting = 0, [], True
        for name in ("host_rx__valid", "host_rx__payload", "tx__valid", "tx__payload"):
            getattr(dut, name).value = 0
        dut.host_tx__ready.value, dut.rx__ready.value, dut.flash__from_flash.value = 1, 1, 1

    async def begin(self):
        self.dut.rst.value = 1
        Clock(self.dut.clk, 2 * round(PERIOD_NS * 500), unit="ps").start()
        await cycles(self.dut, 3)
        self.dut.rst.value = 0
        return self

    async def step(self, host=None, reply=None):
        """One cycle in which the transport and the accelerator may offer a byte each; which were taken."""
        dut = self.dut
        for name, byte in (("host_rx", host), ("tx", reply)):
            getattr(dut, f"{name}__valid").value = byte is not None
            getattr(dut, f"{name}__payload").value = byte or 0
        await settled(dut)
        self.booting = bool(int(dut.booting.value))
        if int(dut.rx__valid.value):
            self.played.append(int(dut.rx__payload.value))
        if int(dut.host_tx__valid.value):
            self.answered.append(int(dut.host_tx__payload.value))
        self._pins(int(dut.flash__select_n.value), int(dut.flash__clock.value), int(dut.flash__to_flash.value))
        taken = host is not None and int(dut.host_rx__ready.value), reply is not None and int(dut.tx__ready.value)
        await cycles(dut)
        self.dut.flash__from_flash.value = self.level
        self.cycle += 1
        return taken

    level = 1

    def _pins(self, select_n, clock, bit):
        selected = self.selections and self.selections[-1][1] is None
        if select_n:
            if selected:
                self.selections[-1][1], self.level = self.cycle, 1
        elif not selected:
            assert not clock and not self.clock, "selected with the clock high: this is not mode 0"
            self.selections.append([self.cycle, None, []])
        if not select_n:
            bits = self.selections[-1][2]
            if clock and not self.clock:
                bits.append(bit)
                self.rises.append(self.cycle)
            elif self.clock and not clock and len(bits) >= 32 and word(bits[:8]) == READ:
                place = len(bits) - 32
                at = word(bits[8:32]) - OFFSET + place // 8
                byte = self.content[at] if 0 <= at < len(self.content) else 0xFF
                self.level = byte >> (7 - place % 8) & 1
        self.clock = clock

    def check_commands(self):
        """0xAB, at least tRES1, then READ from the offset, at no more than its clock."""
        (first_begin, first_end, first), (begin, end, bits) = self.selections
        assert word(first[:8]) == WAKE and len(first) in (8, 32)  # alone, or with the dummy bytes of the device's ID
        assert (begin - first_end) * PERIOD_NS >= T_RES1_NS and first_begin * PERIOD_NS >= T_RES1_NS
        assert word(bits[:32]) == READ << 24 | OFFSET and end is not None
        assert min(b - a for a, b in zip(self.rises, self.rises[1:], strict=False)) * PERIOD_NS >= T_READ_NS - 0.01

    async def until_over(self, limit):
        while self.booting:
            await self.step()
            assert self.cycle < limit, "still booting"


def word(bits):
    return int("".join(map(str, bits)), 2)


def frames(random, count):
    """``count`` frames and an empty one: bytes that are not 0, each with a 0 behind."""
    body = b"".join(bytes(random.choices(range(1, 256), k=random.randrange(1, 255))) + b"\0" for _ in range(count))
    return body + b"\0"


@cocotb.test()
async def plays(dut):
    """Every byte up to the end, in order, and then the transport; nothing of either is mixed."""
    random = rng("plays")
    body = frames(random, 3)
    board = await Board(dut, HEADER + body + bytes(random.choices(range(256), k=300))).begin()
    while board.booting:
        host, reply = random.randrange(256), random.randrange(256)
        assert all(await board.step(host, reply)), "a byte waits while the flash plays"
        assert board.cycle < 16 * (len(body) + BEHIND + 100) + 1000
    assert (board.played.pop(), board.answered.pop()) == (host, reply), "the last cycle is the transport's"
    board.check_commands()
    assert bytes(board.played).rstrip(b"\0") == body.rstrip(b"\0") and not board.answered
    assert board.cycle >= 16 * (len(HEADER) + len(body) + BEHIND - 2)
    board.played.clear()
    sent = [random.randrange(256) for _ in range(20)]
    for byte in sent:
        assert all(await board.step(host=byte, reply=byte ^ 0xFF))
    assert board.played == sent and board.answered == [byte ^ 0xFF for byte in sent]
    dut.host_tx__ready.value = 0
    assert await board.step(host=1, reply=2) == (1, 0), "the transport cannot stop the accelerator"
    assert len(board.selections) == 2 and int(dut.flash__select_n.value) == 1 and int(dut.flash__clock.value) == 0


@cocotb.test()
async def no_magic(dut):
    """A flash without the magic plays nothing, whatever is behind it."""
    random = rng("magic")
    damaged = (HEADER[:k] + bytes([HEADER[k] ^ 1 << random.randrange(8)]) + HEADER[k + 1:] for k in range(4))
    wrong = [bytes([0xFF] * 8), bytes(8), *damaged]
    for content in wrong:
        board = await Board(dut, content + frames(random, 1)).begin()
        await board.until_over(2000 + 20 * CLOCK_HZ // 1_000_000)
        board.check_commands()
        assert not board.played
        await board.step(host=7)
        assert board.played == [7]


@cocotb.test()
async def broken_off(dut):
    """Without an end the transport has its turn when no delimiter has come for 256 bytes."""
    random = rng("broken")
    body = frames(random, 2)[:-1]
    for content in (body, body[:-20]):
        board = await Board(dut, HEADER + content).begin()
        await board.until_over(16 * (len(content) + BEHIND + 100) + 1000)
        whole = content[:content.rindex(0) + 1]
        assert bytes(board.played[:len(content)]) == content
        assert len(whole) + BEHIND - 1 <= len(board.played) <= len(whole) + BEHIND + 1
