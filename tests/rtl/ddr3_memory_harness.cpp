// The memory of a board with a DDR3 SDRAM behind its port (port_traffic.hpp), which is levelled first. Arguments: the chip
// (all numbers of Ddr3Timing), then SEED CYCLES RATIO, that of the memory's clock to the port's, and 1 for one long
// sequence of full reads.

#include "ddr3.hpp"
#include "memory.hpp"

#include "port_traffic.hpp"

#include <cstdlib>

namespace {

struct Board {
    static constexpr size_t PARTS = 4;
    Ddr3Cells cells;
    uint64_t size, near;

    Board(Ddr3 &chip, const Ddr3Timing &timing, unsigned seed)
        : cells(chip, seed), size((uint64_t(1) << (timing.row_bits + timing.column_bits)) - 4), // below the levelling's
          near(uint64_t(1) << (timing.column_bits - 3)) {}

    void edge(Vmemory &top, std::mt19937_64 &random, bool steps) {
        top.read_valid = cells.valid;
        for (int k = 0; k < 4; k++)
            top.read_data[k] = cells.valid ? cells.data[k] : uint32_t(random());
        top.seen = cells.seen;
        top.eval();
        if (steps)
            cells.step(commands_of(top));
    }

    bool counts(const Vmemory &, bool begun) const { return begun; }
};

} // namespace

int main(int argc, char **argv) {
    if (argc <= DDR3_NUMBERS + 4)
        return USAGE;
    uint64_t n[DDR3_NUMBERS];
    for (int k = 0; k < DDR3_NUMBERS; k++)
        n[k] = std::strtoull(argv[1 + k], nullptr, 0);
    const Ddr3Timing timing = ddr3_timing(n);
    char **rest = argv + 1 + DDR3_NUMBERS;
    try {
        Content content(uint64_t(16) << (timing.row_bits + timing.column_bits));
        Ddr3 chip(timing, content.at(0));
        const uint64_t seed = std::strtoull(rest[0], nullptr, 0);
        Board board(chip, timing, unsigned(seed));
        return traffic(board, seed, std::strtoull(rest[1], nullptr, 0), std::strtod(rest[2], nullptr), std::strtoul(rest[3], nullptr, 0));
    } catch (Status status) {
        return status;
    }
}
