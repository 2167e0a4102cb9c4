"""The ternary matrix-vector engine: command in, weight tiles in, rows out."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.array.activations import ActivationBuffers, activation_signature
from sterna.hw.array.control import GATHER, WALK, Control, Product
from sterna.hw.array.decoder import TritDecoder
from sterna.hw.array.rows import SUM_BITS, RowQueue
from sterna.hw.array.tree import RowAccumulator
from sterna.hw.config import most_visits
from sterna.hw.stream import delayed
from sterna.hw.tree.collector import Collector, Sign
from sterna.hw.tree.gather import Gather


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

    Where ``config.tree_rows`` is not 0 a product may also be a walk or a gather of records, one for
    each row and active slot, slot fastest (`Product`):

    * walk: row[s][i] = sum over j of code[s][j] * trit[s][i][j]. In row mode accumulator r takes
      the columns (t R + r) C and up of tile t, with its own word of the codes (`ActivationBuffers`
      with banks), and `Collector` adds the R sums: a record takes as many cycles as it has tiles.
    * gather: Y[s][j] = sum over i of code[s][i] * trit[s][i][j], in lanes of its own (`Gather`).

    Rows of both go to the row queue in words as rows of matrices do. Products of matrices keep
    their cycles; behind and before a walk or gather the array empties.

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
    record_done : Out(1)
        High in the cycle in which the last tile of a product or record is taken.
    busy, stall_stream, stall_rows : Out(1)
        A product is under way or waits; the one under way waits for tiles; it waits for the row
        queue.
    active : In(B); sign : Out(Sign)
        Only where ``config.tree_rows`` is not 0: the slots that have records, at least one, and
        what each record of a walk gave, in their order.
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
                "record_done": Out(1),
            }
            | (
                {
                    "active": In(config.batch),
                    "sign": Out(Sign),
                }
                if most_visits(config)
                else {}
            )
        )

    def elaborate(self, platform):
        # Plan: decoder, buffers and row queue; `control`, which takes tiles; the accumulators,
        # where trits and codes meet; what has become of a tile behind them; trees.
        m = Module()
        cfg = self._config
        rows, columns, lanes, batch = cfg.rows, cfg.columns, cfg.lanes, cfg.batch
        bits, trees = cfg.row_bits, most_visits(cfg) > 0
        m.submodules.decoder = decoder = TritDecoder(
            trits=rows * columns, code=cfg.weight_code, pipelined=not cfg.slow
        )
        banks = rows if trees else 1
        m.submodules.buffers = buffers = ActivationBuffers(
            columns=columns,
            lanes=lanes,
            words=cfg.activation_words,
            batch=batch,
            registered=not cfg.slow,
            banks=banks,
        )
        m.submodules.queue = queue = RowQueue(
            rows=rows, lanes=lanes, depth=cfg.row_words, bits=bits, batch=batch, beats=trees
        )
        # Tiles and codes meet at the accumulators: the earlier of the two waits in registers, or
        # the address of the codes does.
        meet = max(decoder.latency, buffers.latency)
        accumulators = [
            RowAccumulator(columns=columns, bits=bits, pipelined=not cfg.slow)
            for _ in range(rows * batch)
        ]
        row_latency = accumulators[0].latency
        gather = collector = None
        if trees:
            m.submodules.collector = collector = Collector(
                rows=rows, lanes=lanes, batch=batch, bits=bits, pipelined=not cfg.slow
            )
            m.submodules.gather = gather = Gather(
                rows=rows,
                columns=columns,
                lanes=lanes,
                batch=batch,
                bits=cfg.gather_bits,
                tiles=cfg.record_tiles,
                visits=most_visits(cfg),
                trits_latency=decoder.latency,
                pipelined=not cfg.slow,
            )
            # Until the last group of a matrix' tile or the last word of a walk is in the queue.
            behind = max(queue.groups_per_tile, collector.latency) + 2
            m.submodules.control = control = Control(
                cfg,
                queue,
                settle_cycles=meet + row_latency + behind,
                hazard_cycles=gather.hazard_cycles,
            )
        else:
            m.submodules.control = control = Control(cfg, queue)
        connect(m, flipped(self.activation), buffers.write)
        connect(m, flipped(self.rows), queue.rows)
        connect(m, flipped(self.command), control.command)
        enter, last_chunk = control.enter, control.last_chunk
        m.d.comb += [
            control.tile_valid.eq(self.tiles.valid),
            self.tiles.ready.eq(control.tile_ready),
            control.word_left.eq(queue.rows.valid & queue.rows.ready),
            self.done.eq(control.done),
            self.record_done.eq(control.record_done),
            self.busy.eq(control.busy),
            self.stall_stream.eq(control.stall_stream),
            self.stall_rows.eq(control.stall_rows),
            decoder.tile.eq(self.tiles.payload),
            decoder.valid.eq(enter),
        ]

        trits = delayed(m, decoder.trits, meet - decoder.latency, "trits", reset=True)
        place = Cat(control.chunk, control.buffer)
        if banks > 1:
            place = Cat(place, control.bank)
        place = delayed(m, place, meet - buffers.latency, "place", reset=True)
        chunk_bits = len(control.chunk)
        m.d.comb += [
            buffers.address.eq(place[:chunk_bits]),
            buffers.buffer.eq(place[chunk_bits]),
        ]
        if banks > 1:
            m.d.comb += [
                buffers.bank.eq(place[chunk_bits + 1 :]),
                buffers.apart.eq(control.mode == WALK),
            ]
        mark = Signal(2)
        counts = enter & (control.mode != GATHER) if trees else enter
        m.d.comb += mark.eq(counts | (last_chunk << 1))
        at_tree = delayed(m, mark, meet, "mark", reset=True)
        finish = Signal(2 + len(control.groups))
        ends = enter & last_chunk
        if trees:
            ends = ends & (control.mode == 0)
        m.d.comb += finish.eq(ends | (control.last_tile << 1) | (control.groups << 2))
        word_bits = 8 * columns  # of a slot
        for slot in range(batch):
            for r in range(rows):
                bank = r if banks > 1 else 0
                codes = buffers.word.as_value().word_select(bank * batch + slot, word_bits)
                row = accumulators[slot * rows + r]
                m.submodules[f"row{r}_{slot}" if slot else f"row{r}"] = row
                m.d.comb += [
                    row.activations.eq(codes),
                    row.last.eq(at_tree[1]),
                    row.enable.eq(at_tree[0]),
                    queue.tile[slot * rows + r].eq(row.sum),
                ]
                if trees:
                    m.d.comb += collector.sums[slot * rows + r].eq(row.sum)
                for c in range(columns):
                    m.d.comb += row.trits[c].eq(trits[r * columns + c])
        finished = delayed(m, finish, meet + row_latency, "finish", reset=True)
        m.d.comb += [
            queue.tile_valid.eq(finished[0]),
            queue.last.eq(finished[1]),
            queue.groups.eq(finished[2:]),
        ]
        if trees:
            self._trees(m, control, gather, collector, decoder, meet + row_latency)
            m.d.comb += [
                queue.beat.eq(collector.beat),
                queue.beat_valid.eq(collector.beat_valid),
            ]
        return m

    def _trees(self, m, control, gather, collector, decoder, latency):
        """Walks and gathers; sums of records are there ``latency`` cycles behind the last tile."""
        enter, ends = control.enter, control.enter & control.last_chunk
        record = Cat(
            ends & (control.mode == WALK), control.slot_ends, control.last_tile, control.slot
        )
        record = delayed(m, record, latency, "record", reset=True)
        connect(m, flipped(self.activation), gather.write)
        m.d.comb += [
            control.active.eq(self.active),
            Cat(collector.valid, collector.slot_ends, collector.last, collector.slot).eq(record),
            collector.active.eq(self.active),
            gather.active.eq(self.active),
            gather.enter.eq(enter & (control.mode == GATHER)),
            gather.last.eq(control.done),
            gather.buffer.eq(control.buffer),
            gather.row.eq(control.row),
            gather.slot.eq(control.slot),
            gather.tile.eq(control.chunk),
            gather.trits.eq(decoder.trits),
            gather.length.eq(control.length),
            gather.room.eq(control.room),
            control.drain_begins.eq(gather.begins),
            control.drain_ends.eq(gather.ends),
            *(collector.lanes[lane].eq(gather.lanes[lane]) for lane in range(self._config.lanes)),
            collector.lanes_valid.eq(gather.valid),
            collector.lanes_slot.eq(gather.lanes_slot),
            collector.lanes_push.eq(gather.push),
            self.sign.eq(collector.sign),
        ]
