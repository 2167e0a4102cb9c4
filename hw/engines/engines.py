"""K engines behind one sequencer and before one vector engine."""

from amaranth import Module, ResetInserter, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.array.activations import activation_signature
from sterna.hw.array.control import Product
from sterna.hw.config import SUM_BITS
from sterna.hw.engines.deal import Share, broadcast
from sterna.hw.engines.rows import RowGather
from sterna.hw.engines.spread import Spread
from sterna.hw.engines.stations import Stations
from sterna.hw.engines.words import WordMerge
from sterna.hw.memory.arbiter import Arbiter
from sterna.hw.memory.port import MemoryPort, burst_layout, read_layout, write_layout
from sterna.hw.memory.store import Store


class Engine(wiring.Component):
    """One engine: a memory port, a fetch engine with its FIFO, and an array.

        port -- arbiter -- fetch -- router --+-- gearbox -- array -- rows
                   |                         +-- to_vector
             host, store

    Members
    -------
    memory : Out(MemoryPort)
    held : In(1)
        A soft reset of all but the arbiter.
    reads, words, host_write, store, quiet
        As the arbiter's host_bursts, host_words, host_write, store and quiet.
    fetch : In(stream of read_layout); section : In(stream of 1); product : In(stream of Product)
    activation : In(activation_signature(V, B))
    rows : Out(stream of ArrayLayout(signed(24), V * B))
    to_vector : Out(stream of 8 * P); vector_done : In(1)
        Words of vectors; this engine's part of the section ends.
    arrived, full, empty, busy, stall_stream, stall_rows : Out(1)
        For the counters: a word of the stream arrives; of the fetch engine; of the array.
    """

    def __init__(self, config):
        self._config = config
        bits, port = config.word_address_bits, config.port_bytes
        word, write = stream.Signature(8 * port), stream.Signature(write_layout(bits, port))
        rows = data.ArrayLayout(signed(SUM_BITS), config.lanes * config.batch)
        super().__init__(
            {
                "memory": Out(MemoryPort(bits, port)),
                "held": In(1),
                "reads": In(stream.Signature(burst_layout(bits))),
                "words": Out(word),
                "host_write": In(write),
                "store": In(write),
                "quiet": Out(1),
                "fetch": In(stream.Signature(read_layout(bits))),
                "section": In(stream.Signature(1)),
                "product": In(stream.Signature(Product)),
                "activation": In(activation_signature(config.lanes, config.batch)),
                "rows": Out(stream.Signature(rows)),
                "to_vector": Out(word),
                "vector_done": In(1),
                "arrived": Out(1),
                "full": Out(1),
                "empty": Out(1),
                "busy": Out(1),
                "stall_stream": Out(1),
                "stall_rows": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._config
        reset = ResetInserter(self.held)
        m.submodules.arbiter = arbiter = Arbiter(
            address_bits=cfg.word_address_bits, port_bytes=cfg.port_bytes
        )
        stations = Stations.create(m, cfg, reset)
        stations.from_memory(m, cfg, reset, arbiter)
        stations.to_array(m, cfg, reset)
        stations.signals(m)
        fetch, router, array = stations.fetch, stations.router, stations.array
        connect(m, arbiter.port, flipped(self.memory))
        connect(m, flipped(self.reads), arbiter.host_bursts)
        connect(m, arbiter.host_words, flipped(self.words))
        connect(m, flipped(self.host_write), arbiter.host_write)
        connect(m, flipped(self.store), arbiter.store)
        connect(m, flipped(self.fetch), fetch.command)
        connect(m, flipped(self.section), router.section)
        connect(m, flipped(self.product), array.command)
        connect(m, flipped(self.activation), array.activation)
        connect(m, array.rows, flipped(self.rows))
        connect(m, router.to_vector, flipped(self.to_vector))
        m.d.comb += [
            router.vector_done.eq(self.vector_done),
            self.quiet.eq(arbiter.quiet),
            self.arrived.eq(arbiter.fetch_words.valid),
            self.full.eq(fetch.full),
            self.empty.eq(fetch.empty),
            self.busy.eq(array.busy),
            self.stall_stream.eq(array.stall_stream),
            self.stall_rows.eq(array.stall_rows),
        ]
        return m


class Engines(wiring.Component):
    """K engines that share the rows of every matrix, seen as one memory, fetch engine and array.

        host, stores -- Spread ----+-- engine 0 -- rows --+
        fetch, section, product ---+-- engine 1 -- rows --+-- RowGather -- rows
        activation ----------------+-- ...                |
                                   +-- to_vector ---------+-- WordMerge -- words

    Every engine gets the same fetches, sections and products; a product has the rows of ``Share``.
    So all engines do the same at the same time but for what their memories make of it. Rows leave
    in the order of the matrix, vectors in the order of the stream: nobody outside can tell K from
    one, but for the time.

    Parameters
    ----------
    config : Config
        With ``engines`` K > 1.

    Members
    -------
    memory : Out(MemoryPort).array(K)
    held : In(1)
        A soft reset; it leaves accesses of the host alone.
    host_bursts, host_words, host_write, quiet
        As the arbiter's, with addresses of all memories together (``Spread``).
    fetch, section, product, activation, rows
        As those of an engine; ``product`` comes two cycles behind its section or later, as the
        sequencer announces it.
    words : Out(stream of 8 * P); vector_done : In(1)
        Words of vectors; the present one ends its section.
    store : In(stream of {address, words}); stored : In(stream of 8 * P); store_idle : Out(1)
        The store engine: ``words`` of P bytes to the address of every memory upwards.
    busy : Out(1)
        A product is under way, waits, or has rows that are not through.
    arrived, full, empty, stall_stream, stall_rows, refreshing : Out(1)
        Of the first engine, for the counters.
    """

    def __init__(self, config):
        self._config = config
        bits, port = config.word_address_bits, config.port_bytes
        self._engines = [Engine(config) for _ in range(config.engines)]
        engine = self._engines[0].signature.members
        word, all_bits = stream.Signature(8 * port), config.all_address_bits
        super().__init__(
            {
                "memory": Out(MemoryPort(bits, port)).array(config.engines),
                "held": In(1),
                "host_bursts": In(stream.Signature(burst_layout(all_bits))),
                "host_words": Out(word),
                "host_write": In(stream.Signature(write_layout(all_bits, port))),
                **{
                    name: engine[name]
                    for name in ("fetch", "section", "product", "activation", "rows", "vector_done")
                },
                "words": Out(word),
                "store": In(stream.Signature(read_layout(bits))),
                "stored": In(word),
                "store_idle": Out(1),
                **{
                    name: Out(1)
                    for name in (
                        "quiet",
                        "busy",
                        "arrived",
                        "full",
                        "empty",
                        "stall_stream",
                        "stall_rows",
                        "refreshing",
                    )
                },
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg, count = self._config, self._config.engines
        reset = ResetInserter(self.held)
        engines = self._engines
        for k, engine in enumerate(engines):
            m.submodules[f"engine{k}"] = engine
            connect(m, engine.memory, flipped(self.memory[k]))
            m.d.comb += engine.held.eq(self.held)
        self._accesses(m, reset, engines)

        # What all get alike.
        m.submodules.share = share = Share(engines=count, unit=cfg.unit, bits=24)
        m.submodules.gather = gather = reset(
            RowGather(engines=count, unit=cfg.unit, lanes=cfg.lanes, batch=cfg.batch)
        )
        m.submodules.merge = merge = reset(WordMerge(engines=count, port_bytes=cfg.port_bytes))
        broadcast(m, self.fetch, [engine.fetch for engine in engines])
        broadcast(m, self.section, [engine.section for engine in engines])
        # The instruction stands still from the announcement of its section on, but its share is
        # known two cycles later.
        late = Signal()
        products = [engine.product for engine in engines]
        m.d.sync += late.eq(self.section.valid & self.section.ready)
        broadcast(m, self.product, [*products, gather.product], ~late)
        m.d.comb += [
            share.rows.eq(self.product.payload.rows),
            *(product.payload.rows.eq(share.share) for product in products),
            gather.product.payload.eq(self.product.payload.rows),
        ]
        for k, engine in enumerate(engines):
            for name in self.activation.signature.members:
                m.d.comb += getattr(engine.activation, name).eq(getattr(self.activation, name))
            connect(m, engine.rows, gather.queues[k])
            connect(m, engine.to_vector, merge.parts[k])
            m.d.comb += engine.vector_done.eq(merge.ends[k])
        connect(m, gather.rows, flipped(self.rows))
        connect(m, merge.words, flipped(self.words))

        busy, quiet = gather.busy, 1
        for engine in engines:
            busy, quiet = busy | engine.busy, quiet & engine.quiet
        m.d.comb += [
            merge.done.eq(self.vector_done),
            self.busy.eq(busy),
            self.quiet.eq(quiet),
            self.refreshing.eq(self.memory[0].refreshing),
            *(
                getattr(self, name).eq(getattr(engines[0], name))
                for name in ("arrived", "full", "empty", "stall_stream", "stall_rows")
            ),
        ]
        return m

    def _accesses(self, m, reset, engines):
        """Of the host and the stores."""
        cfg = self._config
        shape = {"port_bytes": cfg.port_bytes}
        m.submodules.spread = spread = Spread(
            engines=cfg.engines, address_bits=cfg.word_address_bits, **shape
        )
        m.submodules.stores = stores = reset(Store(address_bits=cfg.all_address_bits, **shape))
        connect(m, flipped(self.host_bursts), spread.host_bursts)
        connect(m, spread.host_words, flipped(self.host_words))
        connect(m, flipped(self.host_write), spread.host_write)
        connect(m, stores.write, spread.store)
        connect(m, flipped(self.stored), stores.words)
        m.d.comb += [
            stores.command.payload.address.eq(self.store.payload.address * cfg.engines),
            stores.command.payload.words.eq(self.store.payload.words),
            stores.command.valid.eq(self.store.valid),
            self.store.ready.eq(stores.command.ready),
            self.store_idle.eq(stores.idle),
        ]
        for k, engine in enumerate(engines):
            connect(m, spread.reads[k], engine.reads)
            connect(m, engine.words, spread.words[k])
            connect(m, spread.host_writes[k], engine.host_write)
            connect(m, spread.stores[k], engine.store)
