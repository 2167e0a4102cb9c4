"""LiteDRAM's PHY for the ECP5 through this project's models of the cells: it is levelled in the manner of its own
software, and reads what it wrote.
"""

import os

import cocotb
from bench import cycles, rng
from cocotb.triggers import FallingEdge, RisingEdge, Timer

NOP, ACTIVATE, WRITE, READ = 7, 3, 4, 5


class Phy:
    """The PHY's DFI and registers. Commands are given in the phases that CAS latencies of 6 for reads and 5
    for writes want.
    """

    def __init__(self, dut):
        self.dut = dut

    async def reset(self):
        dut = self.dut
        for phase in (0, 1):
            self.command(phase, NOP)
            for name in ("cke", "reset_n", "odt", "act_n"):
                getattr(dut, f"p{phase}_{name}").value = 1
        await Timer(200, "ns")
        dut.init_rst.value = 0
        await RisingEdge(dut.reset)
        await FallingEdge(dut.reset)
        await Timer(3000, "ns")
        await RisingEdge(dut.clk)
        dut.sys_rst.value = 0
        await cycles(dut, 50)

    def command(self, phase, command, bank=0, address=0):
        for name, bit in (("ras_n", 2), ("cas_n", 1), ("we_n", 0)):
            getattr(self.dut, f"p{phase}_{name}").value = command >> bit & 1
        getattr(self.dut, f"p{phase}_bank").value = bank
        getattr(self.dut, f"p{phase}_address").value = address

    async def activate(self, bank, row):
        self.command(0, ACTIVATE, bank, row)
        await cycles(self.dut)
        self.command(0, NOP)
        await cycles(self.dut, 6)

    async def write(self, bank, column, value, mask=0):
        """A burst: 8 beats of 16 bits, the first lowest; bit k of ``mask`` keeps byte k."""
        dut = self.dut
        self.command(1, WRITE, bank, column)
        dut.p1_wrdata_en.value = 1
        await cycles(dut)
        self.command(1, NOP)
        dut.p1_wrdata_en.value = 0
        await cycles(dut, 2)
        for phase in (0, 1):
            getattr(dut, f"p{phase}_wrdata").value = value >> 64 * phase & (1 << 64) - 1
            getattr(dut, f"p{phase}_wrdata_mask").value = mask >> 8 * phase & 0xFF
        await cycles(dut)
        for phase in (0, 1):
            getattr(dut, f"p{phase}_wrdata").value = rng("noise").getrandbits(64)
        await cycles(dut, 9)

    async def read(self, bank, columns):
        """Bursts of columns, read one behind the other; the text "x" where a bit is undefined."""
        dut, found = self.dut, []
        for cycle in range(2 * len(columns) + 20):
            active = cycle % 2 == 0 and cycle // 2 < len(columns)
            self.command(0, READ if active else NOP, bank, columns[cycle // 2] if active else 0)
            dut.p0_rddata_en.value = int(active)
            await FallingEdge(dut.clk)
            if dut.p0_rddata_valid.value == 1:
                text = str(dut.p1_rddata.value) + str(dut.p0_rddata.value)
                found.append(int(text, 2) if set(text) <= set("01") else text)
            await RisingEdge(dut.clk)
        assert len(found) == len(columns)
        return found

    async def pulse(self, name):
        getattr(self.dut, name).value = 1
        await cycles(self.dut)
        getattr(self.dut, name).value = 0

    async def step(self, byte, name):
        """A pulse of a register of a byte, during whose selection its strobe pauses."""
        self.dut.sel.value = 1 << byte
        await cycles(self.dut, 4)
        await self.pulse(name)
        await cycles(self.dut, 4)
        self.dut.sel.value = 0
        await cycles(self.dut, 8)

    async def level(self, columns, expected):
        """Sets delay and slip of each byte; returns what was right by byte, slip and delay (nested lists of bool)."""
        dut, table = self.dut, []
        for byte in (0, 1):
            scores = []
            for slip in range(4):
                row = []
                await self.step(byte, "delay_rst")
                for delay in range(8):
                    await self.pulse("burstdet_clr")
                    found = [(await self.read(0, [column]))[0] for column in columns]
                    good = all(not isinstance(value, str) and lane(value, byte) == lane(right, byte)
                               for value, right in zip(found, expected, strict=True))
                    seen = dut.burstdet_seen.value.to_unsigned() >> byte & 1
                    row.append(bool(good and seen))
                    await self.step(byte, "delay_inc")
                scores.append(row)
                await self.step(byte, "slip_inc")
            table.append(scores)
            best = max(range(4), key=lambda slip: sum(scores[slip]))
            right = [delay for delay in range(8) if scores[best][delay]]
            if not right:
                continue
            await self.step(byte, "slip_rst")
            await self.step(byte, "delay_rst")
            for _ in range(best):
                await self.step(byte, "slip_inc")
            for _ in range(right[len(right) // 2]):
                await self.step(byte, "delay_inc")
        return table


def lane(value, byte):
    """The bytes of one lane in a burst (bytes)."""
    return value.to_bytes(16, "little")[byte::2]


@cocotb.test()
async def levels_and_reads(dut):
    random, phy = rng(), Phy(dut)
    dut.chip.out_ps.value = int(os.environ["OUT_PS"])
    dut.chip.back_ps0.value, dut.chip.back_ps1.value = map(int, os.environ["BACK_PS"].split())
    await phy.reset()
    await phy.activate(0, 3)
    columns = [8 * k for k in range(32)]
    content = [random.getrandbits(128) for _ in columns]
    for column, value in zip(columns, content, strict=True):
        await phy.write(0, column, value)
    table = await phy.level(columns[:1], content[:1])
    for byte, scores in enumerate(table):
        for slip, row in enumerate(scores):
            dut._log.info(f"byte {byte} slip {slip}: {''.join('.#'[good] for good in row)}")
    assert all(max(sum(row) for row in scores) >= 2 for scores in table), "no window of delays"
    for k in range(0, 32, 5):  # masks: every second byte, and one alone
        mask = random.getrandbits(16)
        new = random.getrandbits(128)
        await phy.write(0, columns[k], new, mask)
        old, fresh = content[k].to_bytes(16, "little"), new.to_bytes(16, "little")
        content[k] = int.from_bytes(bytes(old[i] if mask >> i & 1 else fresh[i] for i in range(16)), "little")
    for _ in range(4):
        order = random.sample(range(32), 20)
        assert await phy.read(0, [columns[k] for k in order]) == [content[k] for k in order]
    assert dut.chip.problems.value == 0
