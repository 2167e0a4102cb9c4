"""One unknown item of a stream, followed from where it enters to where it leaves.

The number of the item is any constant, so what is proved for it holds for every item; together with the count of what
has left this means that nothing is lost, doubled or reordered. Counters wrap: an item's number stands for all numbers
that are equal modulo 2 ** bits, of which at most one may be under way, so a proof by induction covers streams of any
length.
"""

from amaranth.hdl import Const, Mux, Signal, Value


class Tracked:
    """Counts `width` items of `item_bits` bits per transfer in and out and claims that the tracked one is unchanged.

    Parameters
    ----------
    proof : Proof
    name : str
    bits : int
        Bits of the counters; fewer than 2 ** bits items may be under way.
    item_bits : int

    Attributes
    ----------
    entered, left : Signal
        Items counted so far.
    number, value : Signal
        The tracked item's number and, once it has entered, its value.
    inside : Value
        The tracked item has entered and not left.
    ahead : Value
        While `inside`: items between the way out and the tracked one.
    """

    def __init__(self, proof, name, bits, item_bits):
        self.proof, self.name, self.item_bits = proof, name, item_bits
        self.entered, self.left = Signal(bits, name=f"{name}_entered"), Signal(bits, name=f"{name}_left")
        self.number = proof.constant(bits, f"{name}_number")
        self.value = Signal(item_bits, name=f"{name}_value")
        self.count = (self.entered - self.left)[:bits]
        self.ahead = (self.number - self.left)[:bits]
        self.inside = self.ahead < self.count

    def enter(self, transfer, payload, width=1, count=None):
        """`count` items, all `width` of `payload` by default, enter where `transfer` is high; more than the payload
        has are zeros."""
        payload = Value.cast(payload)
        count = width if count is None else count
        index = (self.number - self.entered)[:len(self.number)]
        with self.proof.m.If(transfer):
            self.proof.m.d.sync += self.entered.eq(self.entered + count)
            with self.proof.m.If(index < count):
                self.proof.m.d.sync += self.value.eq(
                    Mux(index < width, payload.word_select(index, self.item_bits), 0))

    def leave(self, transfer, payload, width=1, count=None, offered=None):
        """`count` items leave where `transfer` is high; where they are `offered` they must be right."""
        payload = Value.cast(payload)
        count = width if count is None else count
        offered = transfer if offered is None else offered
        with self.proof.m.If(transfer):
            self.proof.m.d.sync += self.left.eq(self.left + count)
        self.proof.implies(f"{self.name}_exists", offered, self.count >= count)
        self.proof.implies(f"{self.name}_right", offered & self.inside & (self.ahead < count),
                           payload.word_select(self.ahead[:max(1, (width - 1).bit_length())], self.item_bits)
                           == self.value)


def claim_fifo(proof, inside, item, path):
    """Invariants of a SyncFIFOBuffered at `path` that holds the items of `item`."""
    storage = inside.find(f"{path}.storage")
    depth, width = storage._data.depth, len(Value.cast(storage._read_ports[0]._data))
    produce, consume = (Value.cast(port._addr) for port in (storage._write_ports[0], storage._read_ports[0]))
    stored, shown = inside[f"{path}.inner_level"], inside[f"{path}.r_rdy"]
    place, word = Signal(range(depth), name=f"{item.name}_place"), Signal(width, name=f"{item.name}_stored")
    storage.read_port(domain="comb", addr=place, data=word, en=Const(1), transparent_for=())

    def modulo(sum_):
        return Mux(sum_ >= depth, sum_ - depth, sum_)

    proof.m.d.comb += place.eq(modulo(consume + item.ahead - shown))
    proof.claim(f"{item.name}_fifo_places", (produce < depth) & (consume < depth) & (stored <= depth)
                & (produce == modulo(consume + stored)))
    # What a block RAM reads of a word that is being written is undefined.
    ports = storage._write_ports[0], storage._read_ports[0]
    proof.implies(f"{item.name}_fifo_collision", (ports[0]._en != 0) & (ports[1]._en != 0),
                  produce != consume)
    proof.claim(f"{item.name}_fifo_count", item.count == stored + shown)
    proof.implies(f"{item.name}_shown", item.inside & (item.ahead < shown),
                  inside[f"{path}.r_data"][:item.item_bits] == item.value)
    proof.implies(f"{item.name}_stored", item.inside & (item.ahead >= shown), word[:item.item_bits] == item.value)
