"""The ternary matrix-vector engine: command in, weight tiles in, rows out."""

from amaranth import C as Const
from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.array.activations import ActivationBuffers, activation_signature
from sterna.hw.array.control import Product
from sterna.hw.array.decoder import TritDecoder
from sterna.hw.array.rows import SUM_BITS, RowQueue
from sterna.hw.array.tree import RowAccumulator
from sterna.hw.stream import delayed


class TernaryArray(wiring.Component):
    """acc[s][i] = sum over j of code[s][j] * trit[i][j] for the rows i of a matrix, in order,
    and all slots s at once.

    Output stationary: tiles of R rows; per cycle one chunk of C codes is broadcast to R row
    accumulators, each fed with C trits of the tile. A product takes ceil(rows / R) * max(chunks, R
    / gcd(R, V)) cycles when tiles arrive every cycle. One more product may wait behind it
    (docs/isa.md, MATVEC) and follows without a gap. Once a chunk has entered it never stalls: a
    tile starts only when the row queue can take it. Accumulators hold the largest sum of the
    longest row that an activation buffer takes (`Config.row_bits`).

    Slots are width: buffers and row queue are B times as wide, and B sets of accumulators take the
    same trits in the same cycle, so no count of cycles depends on B. What a set keeps of the trits
    is equal in all sets, and synthesis merges it. Codes and rows stand one slot after the other.

        tiles --> decoder --+
                            +--> B x R x (C terms, adder tree, accumulator) --> row queue --> rows
        codes --> buffers --+

    Parameters
    ----------
    config : Config

    Members
    -------
    command : In(stream of Product)
    tiles : In(stream of 8 * T)
        Weight tiles in image order.
    activation : In(activation_signature(V, B))
    rows : Out(stream of ArrayLayout(signed(24), V * B))
    done : Out(1)
        High in the cycle in which the last tile of a product is taken.
    busy, stall_stream, stall_rows : Out(1)
        A product is under way or waits; the one under way waits for tiles; it waits for the row
        queue.
    """

    def __init__(self, config):
        self._config = config
        super().__init__(
            {
                "command": In(stream.Signature(Product)),
                "tiles": In(stream.Signature(8 * config.tile_bytes)),
                "activation": In(activation_signature(config.lanes, config.batch)),
                "rows": Out(
                    stream.Signature(
                        data.ArrayLayout(signed(SUM_BITS), config.lanes * config.batch)
                    )
                ),
                "done": Out(1),
                "busy": Out(1),
                "stall_stream": Out(1),
                "stall_rows": Out(1),
            }
        )

    def elaborate(self, platform):
        # Plan: decoder, buffers and row queue; the product under way (`running`, `left`, `chunk`)
        # and the one behind it (`waiting`, `next_rows`); what is asked about a tile (`last_tile`,
        # `groups`, `need`), with a fast clock found ahead; whether a chunk may `enter`, for which
        # `credit` counts the room in the row queue; what moves when one does; at the end the
        # accumulators, where trits and codes meet.
        m = Module()
        cfg = self._config
        rows, columns, lanes, batch = cfg.rows, cfg.columns, cfg.lanes, cfg.batch
        bits = cfg.row_bits
        m.submodules.decoder = decoder = TritDecoder(
            trits=rows * columns, code=cfg.weight_code, pipelined=not cfg.slow
        )
        m.submodules.buffers = buffers = ActivationBuffers(
            columns=columns,
            lanes=lanes,
            words=cfg.activation_words,
            batch=batch,
            registered=not cfg.slow,
        )
        m.submodules.queue = queue = RowQueue(
            rows=rows, lanes=lanes, depth=cfg.row_words, bits=bits, batch=batch
        )
        connect(m, flipped(self.activation), buffers.write)
        connect(m, flipped(self.rows), queue.rows)

        # No matrix has more rows than fill the memory and no row more chunks than a buffer: narrow
        # registers will do. Rows not yet started, this tile included.
        left = Signal(min(24, (cfg.memory_bytes * rows // cfg.tile_bytes).bit_length()))
        chunk = Signal(min(16, cfg.activation_words.bit_length()))
        chunks = Signal.like(chunk)  # with a slow clock one less: the last place
        buffer = Signal()
        running = Signal()
        waiting = Signal()  # a product waits in the three registers below
        next_rows, next_chunks = (
            Signal.like(left, name="next_rows"),
            Signal.like(chunks, name="next_chunks"),
        )
        next_buffer = Signal()
        per_tile, per_word = queue.groups_per_tile, queue.groups_per_word
        gap = Signal(range(per_tile + 1))
        credit = Signal(range(cfg.row_words + 1), init=cfg.row_words)

        # What is asked about a chunk and about its tile.
        first_chunk, last_chunk = Signal(), Signal()
        last_tile = Signal()
        groups = Signal(range(per_tile + 1), init=per_tile, name="groups_now")  # of this tile
        # Groups in the word that the tiles before began
        phase = Signal(range(per_word))
        begun = [
            queue.words_begun(*divmod(k, per_tile + 1)) for k in range(per_word * (per_tile + 1))
        ]
        need = Signal(range(max(begun) + 1))
        table = Const(
            sum(words << k * len(need) for k, words in enumerate(begun)), len(begun) * len(need)
        )
        enter = Signal()
        loads = waiting & (~running | self.done)

        def tile(left, phase, name):
            """last_tile, groups and need of a tile that begins with so many rows left."""
            kept = Signal.like(groups, name=f"groups_{name}")
            last = Signal(name=f"last_{name}")
            m.d.comb += [
                last.eq(left <= rows),
                kept.eq(Mux(last, (left + (queue.group_rows - 1)) // queue.group_rows, per_tile)),
            ]
            return Cat(last, kept, table.word_select(phase * (per_tile + 1) + kept, len(need)))

        of_tile, phase_after = Cat(last_tile, groups, need), Signal.like(phase)
        m.d.comb += phase_after.eq((phase + per_tile) % per_word)
        if cfg.slow:
            m.d.comb += [
                of_tile.eq(tile(left, phase, "here")),
                first_chunk.eq(chunk == 0),
                last_chunk.eq(chunk == chunks),
            ]
        else:
            # Found a tile and a chunk ahead.
            with m.If(enter):
                m.d.sync += [
                    first_chunk.eq(last_chunk),
                    last_chunk.eq(Mux(last_chunk, chunks == 1, chunk + 2 == chunks)),
                ]
                with m.If(last_chunk):
                    m.d.sync += of_tile.eq(tile((left - rows)[: len(left)], phase_after, "after"))
            with m.If(loads):
                m.d.sync += [
                    of_tile.eq(tile(next_rows, 0, "next")),
                    first_chunk.eq(1),
                    last_chunk.eq(next_chunks == 1),
                ]

        # Whether a chunk may enter.
        if cfg.slow:
            # `need` is known late. Any tile finds room where this is said; behind the start of a
            # tile, when the queue is nearly full, it is said a cycle late.
            room = Signal(init=1)
            most = max(begun)
            m.d.sync += room.eq(Mux(enter & first_chunk, credit >= 2 * most, credit >= most))
            short = ~room
        else:
            # No carry chain: need is small
            short = ~credit[len(need) :].any() & (credit[: len(need)] < need)
        blocked = (first_chunk & short) | (last_chunk & (gap != 0))
        m.d.comb += [
            enter.eq(running & self.tiles.valid & ~blocked),
            self.tiles.ready.eq(running & ~blocked),
            self.busy.eq(running | waiting),
            self.stall_stream.eq(running & ~self.tiles.valid & ~blocked),
            self.stall_rows.eq(running & blocked),
            self.done.eq(enter & last_chunk & last_tile),
            self.command.ready.eq(~waiting),
            decoder.tile.eq(self.tiles.payload),
            decoder.valid.eq(enter),
        ]

        # Counts of chunks, tiles and products.
        left_queue = queue.rows.valid & queue.rows.ready
        m.d.sync += credit.eq(credit - Mux(enter & first_chunk, need, 0) + left_queue)
        with m.If(gap != 0):
            m.d.sync += gap.eq(gap - 1)
        with m.If(enter):
            m.d.sync += chunk.eq(Mux(last_chunk, 0, chunk + 1))
            with m.If(last_chunk):
                m.d.sync += [
                    left.eq(left - rows),
                    gap.eq(per_tile - 1),
                ]
                m.d.sync += phase.eq(Mux(last_tile, 0, phase_after))
        with m.If(self.done):
            m.d.sync += running.eq(0)
        with m.If(loads):
            m.d.sync += [
                waiting.eq(0),
                running.eq(1),
                left.eq(next_rows),
                chunks.eq(next_chunks - cfg.slow),
                buffer.eq(next_buffer),
                chunk.eq(0),
            ]
        with m.If(self.command.valid & ~waiting):
            m.d.sync += [
                waiting.eq(1),
                next_rows.eq(self.command.payload.rows),
                next_chunks.eq(self.command.payload.chunks),
                next_buffer.eq(self.command.payload.buffer),
            ]

        # Tiles and codes meet at the accumulators: the earlier of the two waits in registers, or
        # the address of the codes does.
        meet = max(decoder.latency, buffers.latency)
        trits = delayed(m, decoder.trits, meet - decoder.latency, "trits", reset=True)
        place = delayed(m, Cat(chunk, buffer), meet - buffers.latency, "place", reset=True)
        m.d.comb += [
            buffers.address.eq(place[:-1]),
            buffers.buffer.eq(place[-1]),
        ]
        mark = Signal(2)
        m.d.comb += mark.eq(enter | (last_chunk << 1))
        at_tree = delayed(m, mark, meet, "mark", reset=True)
        finish = Signal(2 + len(groups))
        m.d.comb += finish.eq((enter & last_chunk) | (last_tile << 1) | (groups << 2))
        word_bits = 8 * columns  # of a slot
        for slot in range(batch):
            codes = buffers.word.as_value().word_select(slot, word_bits)
            for r in range(rows):
                row = RowAccumulator(columns=columns, bits=bits, pipelined=not cfg.slow)
                m.submodules[f"row{r}_{slot}" if slot else f"row{r}"] = row
                m.d.comb += [
                    row.activations.eq(codes),
                    row.last.eq(at_tree[1]),
                    row.enable.eq(at_tree[0]),
                    queue.tile[slot * rows + r].eq(row.sum),
                ]
                for c in range(columns):
                    m.d.comb += row.trits[c].eq(trits[r * columns + c])
        finished = delayed(m, finish, meet + row.latency, "finish", reset=True)
        m.d.comb += [
            queue.tile_valid.eq(finished[0]),
            queue.last.eq(finished[1]),
            queue.groups.eq(finished[2:]),
        ]
        return m
