// The memory of a board with an SDRAM behind its port (port_traffic.hpp).
// Arguments: the chip (all numbers of SdramTiming), then SEED CYCLES RATIO, that of the memory's clock to the port's.

#include "sdram.hpp"

#include "port_traffic.hpp"

#include <cstdlib>
#include <vector>

namespace {

struct Board {
    static constexpr size_t PARTS = 1;
    Sdram &chip;
    uint64_t size, near;

    Board(Sdram &chip, const SdramTiming &timing)
        : chip(chip), size(uint64_t(1) << (timing.row_bits + 1 + timing.column_bits)), near(uint64_t(1) << timing.column_bits) {}

    void edge(Vmemory &top, std::mt19937_64 &random, bool steps) {
        top.dq_i = chip.driving ? chip.data : uint16_t(random());
        if (steps)
            chip.step(pins_of(top));
    }

    bool counts(const Vmemory &top, bool) const { return top.ready; }
};

} // namespace

int main(int argc, char **argv) {
    if (argc <= SDRAM_NUMBERS + 3)
        return USAGE;
    uint64_t n[SDRAM_NUMBERS];
    for (int k = 0; k < SDRAM_NUMBERS; k++)
        n[k] = std::strtoull(argv[1 + k], nullptr, 0);
    const SdramTiming timing = sdram_timing(n);
    char **rest = argv + 1 + SDRAM_NUMBERS;
    try {
        std::vector<uint8_t> content(uint64_t(2) << (timing.row_bits + 2 + timing.column_bits));
        Sdram chip(timing, content.data());
        Board board(chip, timing);
        return traffic(board, std::strtoull(rest[0], nullptr, 0), std::strtoull(rest[1], nullptr, 0), std::strtod(rest[2], nullptr), false);
    } catch (Status status) {
        return status;
    }
}
