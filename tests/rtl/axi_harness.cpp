// AxiMemory with four ports of 16 bytes before the DRAM model: a linear stream with writes in between, as the arbiter and
// the fetch engine make it. Arguments: a setting as --dram takes it, words to read, bursts at most under way, first word,
// reads per write (0: none). Prints the cycles from the first word to the last; every word is compared.

#include "Vmemory.h"
#include "dram.hpp"
#include "verilated.h"

#include <cstdlib>
#include <deque>

namespace {

constexpr unsigned PORTS = 4, BEAT = 16, BLOCK = 256, WORD = PORTS * BEAT, LONGEST = 32;
constexpr uint64_t BYTES = 1 << 24, CLOCK = 4000;

template <class Port> const uint8_t *bytes_of(const Port &port) { return reinterpret_cast<const uint8_t *>(&port); }

DramTiming timing(const char *text) {
    DramTiming t;
    uint64_t *fields[] = {&t.transfer, &t.rcd, &t.rp, &t.rrd, &t.ras, &t.cas, &t.rfc, &t.refi, &t.write_recovery, &t.turn,
                          &t.path, &t.depth, &t.wrong_burst};
    for (uint64_t *field : fields) {
        char *end = nullptr;
        *field = std::strtoull(text, &end, 10);
        text = *end ? end + 1 : end;
    }
    return t;
}

uint64_t place(uint64_t word, unsigned port) {
    return (word / (BLOCK / BEAT) * PORTS + port) * BLOCK + word % (BLOCK / BEAT) * BEAT;
}

int run(int argc, char **argv) {
    if (argc != 6)
        return 1;
    Content content(BYTES);
    content.randomize(5);
    Dram dram(timing(argv[1]), CLOCK, content, BYTES, PORTS, BEAT);
    const uint64_t first = std::strtoull(argv[4], nullptr, 10), words = first + std::strtoull(argv[2], nullptr, 10);
    const unsigned most = unsigned(std::strtoul(argv[3], nullptr, 10)), every = unsigned(std::strtoul(argv[5], nullptr, 10));
    Vmemory top;
    std::vector<AxiPins> pins(PORTS);
    uint64_t asked = first, given = first, began = 0, cycle = 0, writes = 0;
    std::deque<uint64_t> bursts; // ends of those under way
    for (; given < words; cycle++) {
        const bool reset = cycle < 4;
        top.rst = reset;
#define ANSWER(k)                                                  \
    top.axi##k##_arready = dram.answers[k].arready;                \
    top.axi##k##_awready = dram.answers[k].awready;                \
    top.axi##k##_wready = dram.answers[k].wready;                  \
    top.axi##k##_rvalid = dram.answers[k].rvalid;                  \
    top.axi##k##_rlast = dram.answers[k].rlast;                    \
    top.axi##k##_rid = dram.answers[k].rid;                        \
    top.axi##k##_rresp = 0;                                        \
    if (dram.answers[k].rvalid)                                    \
        std::memcpy(&top.axi##k##_rdata, dram.answers[k].rdata, BEAT); \
    top.axi##k##_bvalid = dram.answers[k].bvalid;                  \
    top.axi##k##_bid = top.axi##k##_bresp = 0;
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
#define PINS(k)                                                                                                           \
    pins[k] = {bool(top.axi##k##_arvalid), bool(top.axi##k##_awvalid), bool(top.axi##k##_wvalid), bool(top.axi##k##_wlast), \
               bool(top.axi##k##_rready), bool(top.axi##k##_bready), top.axi##k##_araddr, top.axi##k##_awaddr,             \
               top.axi##k##_arid, top.axi##k##_arlen, top.axi##k##_arsize, top.axi##k##_arburst, top.axi##k##_awid,         \
               top.axi##k##_awlen, top.axi##k##_awsize, top.axi##k##_awburst, bytes_of(top.axi##k##_wdata),                 \
               bytes_of(top.axi##k##_wstrb)};
        PINS(0) PINS(1) PINS(2) PINS(3)
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
