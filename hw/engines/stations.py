"""From the bursts of one memory to the tiles of one array: the stations that every engine has."""

from dataclasses import dataclass
from types import SimpleNamespace

from amaranth.lib.wiring import connect

from sterna.hw.array.array import TernaryArray
from sterna.hw.config import most_visits
from sterna.hw.memory.fetch import DirectFetch, Fetch
from sterna.hw.memory.router import QUEUED_SECTIONS, Router
from sterna.hw.stream import SKID_DEPTH, Gearbox, Queue, SkidBuffer


@dataclass
class Stations:
    """The stations of an engine in a module ``m``; ``reset`` makes a component that a soft reset
    resets.

        memory -- fetch -- (skid buffer) -- router --+-- gearbox -- array
                                                     +-- to_vector

    What is left to be connected are the commands of fetch, router and array, the router's
    ``to_vector`` and ``vector_done``, and activations and rows of the array.
    """

    fetch: object
    router: object
    gearbox: object
    array: object

    @classmethod
    def create(cls, m, config, reset):
        """The stations as submodules of ``m``, not yet connected."""
        cfg, external = config, config.memory == "external"
        shape = {"address_bits": cfg.word_address_bits, "port_bytes": cfg.port_bytes}
        m.submodules.fetch = fetch = reset(
            Fetch(
                **shape,
                fifo_words=cfg.fifo_words,
                pairs=cfg.pairs,
                queued=cfg.queued_fetches,
                aligned=cfg.axi_ports > 0,
                tree_rows=cfg.tree_rows,
                record_bits=cfg.record_words.bit_length(),
                batch=cfg.batch,
            )
            if external
            else DirectFetch(**shape)
        )
        m.submodules.router = router = reset(
            Router(
                port_bytes=cfg.port_bytes,
                sections=QUEUED_SECTIONS if external else 2,
                pairs=cfg.pairs,
            )
        )
        m.submodules.gearbox = gearbox = reset(
            Gearbox(
                port_bytes=cfg.port_bytes,
                tile_bytes=cfg.tile_bytes,
                records=most_visits(cfg) > 0,
            )
        )
        m.submodules.array = array = reset(TernaryArray(cfg))
        return cls(fetch, router, gearbox, array)

    def front(self, memory, store):
        """The stations before ``memory``, with a ``store`` engine, as `Engines` shows those of
        many: what the accelerator connects and counts, under the names of its members.
        """
        return SimpleNamespace(
            fetch=self.fetch.command,
            section=self.router.section,
            product=self.array.command,
            activation=self.array.activation,
            rows=self.array.rows,
            words=self.router.to_vector,
            vector_done=self.router.vector_done,
            store=store.command,
            stored=store.words,
            store_idle=store.idle,
            arrived=memory.fetch_words.valid,
            full=getattr(self.fetch, "full", None),
            empty=getattr(self.fetch, "empty", None),
            **{name: getattr(self.array, name) for name in ("busy", "stall_stream", "stall_rows")},
        )

    def from_memory(self, m, config, reset, memory):
        """Fetch engine and ``memory``, an arbiter or the memory on the chip."""
        if config.memory != "external":
            connect(m, self.fetch.reads, memory.fetch_reads)
        elif config.slow:
            connect(m, self.fetch.bursts, memory.fetch_bursts)
        else:
            queue = Queue(self.fetch.bursts.payload.shape(), SKID_DEPTH)
            m.submodules.bursts = reset(queue)
            connect(m, self.fetch.bursts, queue.i)
            connect(m, queue.o, memory.fetch_bursts)
        connect(m, memory.fetch_words, self.fetch.arriving)

    def to_array(self, m, config, reset):
        """Fetch engine, router, gearbox and array."""
        words, second = self.fetch.words, self.fetch.second if config.pairs else None
        if config.memory == "external" and not config.slow:
            m.submodules.ahead = ahead = reset(
                SkidBuffer(port_bytes=config.port_bytes, pairs=config.pairs)
            )
            connect(m, words, ahead.i)
            if config.pairs:
                connect(m, second, ahead.i_second)
            words, second = ahead.o, ahead.o_second if config.pairs else None
        connect(m, words, self.router.words)
        connect(m, self.router.to_array, self.gearbox.i)
        if config.pairs:
            connect(m, second, self.router.second)
            connect(m, self.router.array_second, self.gearbox.i_second)
        connect(m, self.gearbox.o, self.array.tiles)

    def signals(self, m):
        """What the array says to router and gearbox."""
        m.d.comb += [
            self.router.array_done.eq(self.array.done),
            self.gearbox.drop.eq(self.array.record_done),
        ]

    def trees(self, m, config, active):
        """What the array says to the gearbox and the fetch engine where trees are walked;
        ``active``: the slots that are.
        """
        m.d.comb += [
            self.gearbox.ends.eq(self.array.done),
            self.fetch.sign.eq(self.array.sign),
            self.array.active.eq(active),
        ]
        if config.batch > 1:
            m.d.comb += self.fetch.active.eq(active)
