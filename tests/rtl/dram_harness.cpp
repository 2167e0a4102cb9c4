// The DRAM model alone: four masters of 16 bytes in lock step that read a linear stream, or one that breaks a rule.
// Arguments: a setting as --dram takes it, megabytes to read, the name of what is to go wrong ("" for nothing).
// Prints bytes and picoseconds; the content is compared.

#include "dram.hpp"

#include <cstdlib>
#include <string>

namespace {

constexpr unsigned PORTS = 4, BEAT = 16, BEATS = 16;
constexpr uint64_t BYTES = 1 << 24, CLOCK = 4000;

int run(int argc, char **argv) {
    if (argc != 4)
        return 1;
    Content content(BYTES);
    content.randomize(7);
    Dram dram(dram_timing(argv[1]), CLOCK, content, BYTES, PORTS, BEAT);
    const uint64_t words = std::strtoull(argv[2], nullptr, 10) * 1000000 / (PORTS * BEAT) / BEATS * BEATS;
    const std::string fault = argv[3];
    const uint8_t zeros[64] = {}, ones[64] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    std::vector<AxiPins> pins(PORTS);
    uint64_t asked[PORTS] = {}, given[PORTS] = {}, cycles = 0, least = 0;
    while (least < words) {
        for (unsigned k = 0; k < PORTS; k++) {
            AxiPins &p = pins[k];
            p = {};
            p.wdata = zeros;
            p.wstrb = ones;
            p.rready = p.bready = true;
            // No port asks more than four blocks before the others are answered.
            p.arvalid = asked[k] < words && asked[k] < least + BEATS * 16;
            p.araddr = (asked[k] / BEATS * PORTS + k) * BEATS * BEAT % BYTES;
            p.arlen = BEATS - 1;
            p.arsize = 4;
            p.arburst = 1;
            p.arid = unsigned(asked[k] / BEATS % 16);
        }
        AxiPins &p = pins[1];
        const bool now = cycles == 200, later = cycles >= 200; // a read is not taken in every cycle
        if (fault == "boundary" && later)
            p.araddr += 4096 - 128 - p.araddr % 4096;
        if (fault == "burst" && later)
            p.arburst = 2;
        if (fault == "size" && later)
            p.arsize = 3;
        if (fault == "beyond" && later)
            p.araddr = BYTES;
        if (fault == "held" && p.arvalid && !dram.answers[1].arready)
            p.arid = cycles % 16;
        if (fault == "unasked" && now)
            p.wvalid = true;
        if ((fault == "last" || fault == "read" || fault == "order") && later) {
            p.awvalid = now;
            p.awaddr = fault == "read" ? p.araddr / 2 : BYTES / 2;
            p.awlen = 1;
            p.awsize = 4;
            p.awburst = 1;
            p.wvalid = fault == "last" && cycles == 201;
            p.wlast = p.wvalid;
            if (fault == "read")
                p.awaddr = (given[1] / BEATS * PORTS + 1) * BEATS * BEAT % BYTES + 32;
            if (fault == "order" && cycles >= 203) {
                p.araddr = BYTES / 2;
                p.arlen = 1;
            }
        }
        for (unsigned k = 0; k < PORTS; k++) {
            const AxiAnswer &a = dram.answers[k];
            if (pins[k].arvalid && a.arready)
                asked[k] += BEATS;
            if (!a.rvalid)
                continue;
            const uint64_t at = (given[k] / BEATS * PORTS + k) * BEATS * BEAT + given[k] % BEATS * BEAT;
            if (fault.empty() && std::memcmp(a.rdata, content.at(at % BYTES), BEAT))
                fail(BAD_ACCESS, "a beat is not that of its place");
            given[k]++;
        }
        dram.step(pins);
        cycles++;
        least = std::min({given[0], given[1], given[2], given[3]});
        if (cycles > 100 * words)
            fail(CYCLE_LIMIT, "no answer");
    }
    std::printf("%llu %llu\n", (unsigned long long)(words * PORTS * BEAT), (unsigned long long)(cycles * CLOCK));
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
