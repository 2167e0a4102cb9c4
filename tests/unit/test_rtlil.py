"""RTLIL that is written faster than Amaranth writes it, to the letter what Amaranth writes."""

import random

import pytest
from amaranth.back import rtlil as slow
from amaranth.hdl import Module, Shape
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Out
from conftest import seed
from sterna.hw.flow import rtlil


class Words(wiring.Component):
    """A memory whose words leave one after the other."""

    def __init__(self, shape, depth, init):
        super().__init__({"word": Out(Shape.cast(shape))})
        self.memory = Memory(shape=shape, depth=depth, init=init)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = self.memory
        port = self.memory.read_port()
        write = self.memory.write_port()
        m.d.sync += [port.addr.eq(port.addr + 1), write.addr.eq(write.addr + 3), write.en.eq(~write.en)]
        m.d.comb += [port.en.eq(1), write.data.eq(self.word), self.word.eq(port.data)]
        return m


@pytest.mark.parametrize("width, signed", [(1, False), (1, True), (7, False), (24, True), (640, False)])
@pytest.mark.parametrize("depth", [1, 2, 3, 16, 100])
def test_text_is_that_of_amaranth(width, signed, depth):
    draw = random.Random(f"{seed()} {width} {signed} {depth}")
    low = -(1 << width - 1) if signed else 0
    init = [draw.randrange(low, low + (1 << width)) for _ in range(draw.randint(0, depth))]
    fast, text = (convert(Words(Shape(width, signed), depth, init), name="words", **options)
                  for convert, options in ((rtlil.convert, {}), (slow.convert, {"emit_src": False})))
    assert "$meminit_v2" in text and fast == text


def test_amaranth_is_left_as_it_was():
    before = slow.ModuleEmitter.emit_memory
    with pytest.raises(TypeError):
        rtlil.convert(Module())
    assert slow.ModuleEmitter.emit_memory is before
