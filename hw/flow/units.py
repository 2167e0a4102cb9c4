"""The components that can be synthesised alone, how they are made for a configuration, and the
error of the flow: for a unit that there is not, or a tool that fails.
"""

import importlib
from dataclasses import dataclass
from operator import attrgetter

from sterna.hw.config import most_visits
from sterna.sim.golden.errors import SternaError


class SynthesisError(SternaError, RuntimeError):
    """A unit cannot be synthesised; the message names the unit or the tool and the way out."""


@dataclass(frozen=True)
class Unit:
    """A component that can be synthesised alone: "module:Class" within sterna.hw and its arguments
    from a Config.
    """

    path: str
    arguments: object
    memory: str = ""  # the kind of memory that the unit belongs to, if not to both
    option: str = ""  # the parameter of the configuration without which (0) there is no such unit

    def create(self, config):
        """The component for `config`."""
        module, _, name = self.path.partition(":")
        positional, keywords = self.arguments(config)
        made = attrgetter(name)(importlib.import_module(f"sterna.hw.{module}"))
        return made(*positional, **keywords)


def _whole(config):
    return (config,), {}


UNITS = {
    "array": Unit("array.array:TernaryArray", _whole),
    "decoder": Unit(
        "array.decoder:TritDecoder",
        lambda c: (
            (),
            {"trits": c.rows * c.columns, "code": c.weight_code, "pipelined": not c.slow},
        ),
    ),
    "tree": Unit(
        "array.tree:RowAccumulator",
        lambda c: ((), {"columns": c.columns, "bits": c.row_bits, "pipelined": not c.slow}),
    ),
    "activations": Unit(
        "array.activations:ActivationBuffers",
        lambda c: (
            (),
            {
                "columns": c.columns,
                "lanes": c.lanes,
                "words": c.activation_words,
                "batch": c.batch,
                "registered": not c.slow,
                "banks": c.rows if most_visits(c) else 1,
            },
        ),
    ),
    "gather": Unit(
        "tree.gather:Gather",
        lambda c: (
            (),
            {
                "rows": c.rows,
                "columns": c.columns,
                "lanes": c.lanes,
                "batch": c.batch,
                "bits": c.gather_bits,
                "tiles": c.record_tiles,
                "visits": most_visits(c),
                "trits_latency": 3 if c.weight_code == "trit5" and not c.slow else 1,
                "pipelined": not c.slow,
            },
        ),
        option="tree_rows",
    ),
    "collector": Unit(
        "tree.collector:Collector",
        lambda c: (
            (),
            {
                "rows": c.rows,
                "lanes": c.lanes,
                "batch": c.batch,
                "bits": c.row_bits,
                "pipelined": not c.slow,
            },
        ),
        option="tree_rows",
    ),
    "rows": Unit(
        "array.rows:RowQueue",
        lambda c: (
            (),
            {
                "rows": c.rows,
                "lanes": c.lanes,
                "depth": c.row_words,
                "bits": c.row_bits,
                "batch": c.batch,
                "beats": most_visits(c) > 0,
            },
        ),
    ),
    "vector": Unit("vector.engine:VectorEngine", _whole),
    "lane": Unit("vector.lane:Lane", lambda c: ((c.compact, not c.slow), {})),
    "multiplier": Unit("vector.float:Multiplier", lambda c: ((not c.slow,), {})),
    "adder": Unit("vector.float:Adder", lambda c: ((c.compact, not c.slow), {})),
    "tables": Unit("vector.tables:TableUnit", lambda c: ((not c.slow,), {})),
    "toplist": Unit(
        "vector.toplist:TopList",
        lambda c: ((c.lanes, min(24, c.register_bits), c.top_k, c.strip // c.lanes), {}),
        option="top_k",
    ),
    "random": Unit("vector.random:RandomUnit", lambda c: ((c.lanes,), {})),
    "fetch": Unit(
        "memory.fetch:Fetch",
        lambda c: (
            (),
            {
                "address_bits": c.word_address_bits,
                "port_bytes": c.port_bytes,
                "fifo_words": c.fifo_words,
                "pairs": c.pairs,
                "queued": c.queued_fetches,
                "tree_rows": c.tree_rows,
                "record_bits": c.record_words.bit_length(),
                "batch": c.batch,
            },
        ),
        "external",
    ),
    "walker": Unit(
        "tree.walker:Walker",
        lambda c: (
            (),
            {
                "address_bits": c.word_address_bits,
                "tree_rows": c.tree_rows,
                "record_bits": c.record_words.bit_length(),
                "batch": c.batch,
            },
        ),
        option="tree_rows",
    ),
    "direct_fetch": Unit(
        "memory.fetch:DirectFetch",
        lambda c: ((), {"address_bits": c.word_address_bits, "port_bytes": c.port_bytes}),
        "onchip",
    ),
    "sdram": Unit("memory.external:SdramMemory", _whole, "external", option="sdram"),
    "axi": Unit("memory.axi.memory:AxiMemory.of", _whole, "external", option="axi_ports"),
    "ddr3": Unit("memory.ddr3.memory:Ddr3Memory", _whole, "external", option="ddr3"),
    "arbiter": Unit(
        "memory.arbiter:Arbiter",
        lambda c: ((), {"address_bits": c.word_address_bits, "port_bytes": c.port_bytes}),
        "external",
    ),
    "gearbox": Unit(
        "stream:Gearbox",
        lambda c: (
            (),
            {
                "port_bytes": c.port_bytes,
                "tile_bytes": c.tile_bytes,
                "records": most_visits(c) > 0,
            },
        ),
    ),
    "link": Unit("link.link:Link", _whole),
    "flash": Unit("link.flash:FlashBoot", lambda c: ((c.clock_hz,), {}), "onchip"),
    "uart": Unit("link.uart:Uart", lambda c: ((c.clock_hz, 1_000_000), {})),
    "registers": Unit("control.registers:Registers", _whole),
    "counters": Unit("control.counters:Counters", lambda c: ((c.counters,), {})),
    "sequencer": Unit("control.sequencer:Sequencer", _whole),
    "router": Unit(
        "memory.router:Router",
        lambda c: (
            (),
            {
                "port_bytes": c.port_bytes,
                "sections": 8 if c.memory == "external" else 2,
                "pairs": c.pairs,
            },
        ),
    ),
    "store": Unit(
        "memory.store:Store",
        lambda c: ((), {"address_bits": c.word_address_bits, "port_bytes": c.port_bytes}),
    ),
    "onchip": Unit(
        "memory.onchip:OnChipMemory",
        lambda c: (
            (),
            {
                "address_bits": c.word_address_bits,
                "port_bytes": c.port_bytes,
                "words": c.memory_bytes // c.port_bytes,
            },
        ),
        "onchip",
    ),
    "accelerator": Unit("accelerator:Accelerator", _whole),
}


def units_of(config):
    """Names of the units that `config` has."""
    return [
        name
        for name, unit in UNITS.items()
        if unit.memory in ("", config.memory) and (not unit.option or getattr(config, unit.option))
    ]


def check(unit, config):
    """SynthesisError unless `config` has a unit called `unit`; it lists those that there are."""
    if unit not in UNITS:
        raise SynthesisError(f"unknown unit {unit!r}: use one of {', '.join(UNITS)}")
    option = UNITS[unit].option
    chips = {"sdram": ("SDRAM", "ulx3s-85f"), "ddr3": ("DDR3", "ecpix5-85")}
    if option in chips and not getattr(config, option):
        kind, board = chips[option]
        raise SynthesisError(
            f"unit {unit!r}: the preset {config.name} names no {kind}; "
            f"use a board, such as --preset {board}"
        )
    if option and not getattr(config, option):
        raise SynthesisError(
            f"unit {unit!r}: the preset {config.name} has none, as its {option} is 0; "
            f"add one: --preset {config.name},{option}=NUMBER"
        )
    if unit not in units_of(config):
        raise SynthesisError(
            f"unit {unit!r}: the preset {config.name} with {config.memory} memory has none; "
            f"use one of {', '.join(units_of(config))}"
        )


def create(unit, config):
    """The component called `unit` for `config`; SynthesisError as `check`."""
    check(unit, config)
    return UNITS[unit].create(config)
