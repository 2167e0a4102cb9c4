// AxiMemory with four ports of 16 bytes before the DRAM model: a linear stream with writes in between, as the arbiter and
// the fetch engine make it. Arguments: a setting as --dram takes it, words to read, bursts at most under way, first word,
// reads per write (0: none). Prints the cycles from the first word to the last; every word is compared.

#include "Vmemory.h"
#include "dram.hpp"
#include "ports.hpp"
#include "verilated.h"

#include <cstdlib>
#include <deque>

namespace {

constexpr unsigned PORTS = 4, BEAT = 16, BLOCK = 256, WORD = PORTS * BEAT, LONGEST = 32;
constexpr uint64_t BYTES = 1 << 24, CLOCK = 4000;

uint64_t place(uint64_t word, unsigned port) {
    return (word / (BLOCK / BEAT) * PORTS + port) * BLOCK + word % (BLOCK / BEAT) * BEAT;
}

int run(int argc, char **argv) {
    if (argc != 6)
        return 1;
    Content content(BYTES);
    content.randomize(5);
    Dram dram(dram_timing(argv[1]), CLOCK, content, BYTES, PORTS, BEAT);
    const uint64_t first = std::strtoull(argv[4], nullptr, 10), words = first + std::strtoull(argv[2], nullptr, 10);
    const unsigned most = unsigned(std::strtoul(argv[3], nullptr, 10)), every = unsigned(std::strtoul(argv[5], nullptr, 10));
    Vmemory top;
    std::vector<AxiPins> pins(PORTS);
    uint64_t asked = first, given = first, began = 0, cycle = 0, writes = 0;
    std::deque<uint64_t> bursts; // ends of those under way
    for (; given < words; cycle++) {
        const bool reset = cycle < 4;
        top.rst = reset;
#define ANSWER(k) AXI_ANSWER(top, k, dram.answers[k], BEAT)
        ANSWER(0) ANSWER(1) ANSWER(2) ANSWER(3)
        const uint64_t length = std::min(words - asked, LONGEST - asked % LONGEST);
        top.reads_valid = !reset && asked < words && bursts.size() < most;
        top.reads_address = asked;
        top.reads_length = length;
        // Behind the stream, so that no read is of the same place.
        top.write_valid = every && !reset && (given - first) / every > writes;
        top.word_mask = ~uint64_t(0);
        top.write_address = (BYTES / WORD / 2 + writes);
        top.clk = 0;
        top.eval();
        const bool takes = top.reads_valid && top.reads_ready, written = top.write_valid && top.write_ready;
        if (takes) {
            asked += length;
            bursts.push_back(asked);
        }
        writes += written;
        if (!reset && top.data_valid) {
            for (unsigned k = 0; k < PORTS; k++)
                if (std::memcmp(bytes_of(top.data_read) + k * BEAT, content.at(place(given, k)), BEAT))
                    fail(BAD_ACCESS, "a word is not that of its place");
            if (given++ == first)
                began = cycle;
            if (given == bursts.front())
                bursts.pop_front();
        }
        pins = {AXI_PINS(top, 0), AXI_PINS(top, 1), AXI_PINS(top, 2), AXI_PINS(top, 3)};
        if (!reset)
            dram.step(pins);
        top.clk = 1;
        top.eval();
        if (cycle > 100 * words + 1000)
            fail(CYCLE_LIMIT, "no answer");
    }
    std::printf("%llu %llu %llu %llu\n", (unsigned long long)(cycle - began), (unsigned long long)dram.counts.read_chunks,
                (unsigned long long)dram.counts.refreshes, (unsigned long long)dram.counts.turns);
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    try {
        return run(argc, argv);
    } catch (Status status) {
        return status;
    }
}
