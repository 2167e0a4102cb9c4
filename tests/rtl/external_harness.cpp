// The memory of a board with an SDRAM behind its port, with two clocks: random reads and writes, every word compared.
// Arguments: the chip (all numbers of SdramTiming), then SEED CYCLES RATIO, that of the memory's clock to the port's.

#include "Vmemory.h"
#include "sdram.hpp"
#include "verilated.h"

#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <unordered_map>

namespace {

constexpr unsigned RESET_CYCLES = 4, OUTSTANDING = 8, BURST = 32;

int traffic(Sdram &chip, const SdramTiming &timing, uint64_t seed, uint64_t cycles, double ratio) {
    std::mt19937_64 random(seed);
    auto below = [&](uint64_t bound) { return random() % bound; };
    auto chance = [&](double p) { return double(random() >> 11) * 0x1p-53 < p; };
    const uint64_t size = uint64_t(1) << (timing.row_bits + 1 + timing.column_bits); // words of 4 bytes
    std::unordered_map<uint64_t, uint32_t> written; // the others are zero
    std::deque<std::pair<uint64_t, uint32_t>> expected;
    std::deque<uint64_t> bursts; // words of each that are still to come
    auto top = std::make_unique<Vmemory>();
    bool reads = false, writes = false;
    uint64_t address = 0, length = 0, next = 0, target = 0, words = 0, stores = 0, refreshing = 0, since = 0;
    uint32_t value = 0;
    unsigned mask = 0;
    double read_rate = 1, write_rate = 0, edge = double(below(1000)) / 1000 / ratio;
    auto rise = [&](CData &clock, CData &other) {
        if (clock) {
            clock = 0;
            top->eval();
        }
        clock = 1;
        other = 0;
        top->eval();
    };
    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
        for (; edge <= double(cycle); edge += 1 / ratio * (0.98 + 0.04 * double(below(1000)) / 1000)) {
            top->memory_rst = cycle < RESET_CYCLES;
            rise(top->memory_clk, top->clk);
            top->dq_i = chip.driving ? chip.data : uint16_t(random());
            if (cycle >= RESET_CYCLES)
                chip.step(pins_of(*top));
        }
        top->rst = cycle < RESET_CYCLES;
        if (cycle % 1024 == 0) {
            read_rate = chance(0.4) ? 1 : 0.05;
            write_rate = chance(0.3) ? 1 : chance(0.4) ? 0 : 0.1;
        }
        // As the accelerator does: few bursts at once, and no write to a word that is being read.
        if (!reads && bursts.size() < OUTSTANDING && chance(read_rate)) {
            if (chance(0.3))
                next = chance(0.5) ? below(size) : target;
            length = 1 + below(BURST);
            if (next + length > size)
                next = 0;
            address = next;
            next += length;
            reads = !writes || target < address || target >= address + length;
        }
        if (!writes && chance(write_rate)) {
            target = (next + below(1 << timing.column_bits)) % size;
            bool outstanding = reads && target >= address && target < address + length;
            for (const auto &word : expected)
                outstanding |= word.first == target;
            value = uint32_t(random());
            mask = unsigned(below(16));
            writes = !outstanding;
        }
        top->reads_valid = reads;
        top->reads_address = uint32_t(address);
        top->reads_length = uint8_t(length);
        top->write_valid = writes;
        top->write_address = uint32_t(target);
        top->word_data = value;
        top->word_mask = uint8_t(mask);
        top->eval();
        if (!top->rst) {
            if (top->data_valid) {
                if (expected.empty() || top->data_read != expected.front().second) {
                    std::fprintf(stderr, "a word that is wrong or that nobody asked for: %08x (cycle %llu)\n", unsigned(top->data_read),
                                 (unsigned long long)cycle);
                    return BAD_ACCESS;
                }
                expected.pop_front();
                if (--bursts.front() == 0)
                    bursts.pop_front();
                words++;
            }
            since += top->ready;
            refreshing += top->refreshing;
            const bool stores_now = writes && top->write_ready;
            if (reads && top->reads_ready) {
                for (uint64_t k = address; k < address + length; k++)
                    expected.push_back({k, written.count(k) ? written[k] : 0});
                bursts.push_back(length);
                reads = false;
            }
            if (stores_now) {
                for (unsigned k = 0; k < 4; k++)
                    if (mask >> k & 1)
                        written[target] = (written[target] & ~(0xFFu << 8 * k)) | (value & 0xFFu << 8 * k);
                writes = false;
                stores++;
            }
        }
        rise(top->clk, top->memory_clk);
    }
    std::printf("words %llu writes %llu since %llu refreshing %llu waiting %zu\n", (unsigned long long)words, (unsigned long long)stores,
                (unsigned long long)since, (unsigned long long)refreshing, expected.size());
    return OK;
}

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
        return traffic(chip, timing, std::strtoull(rest[0], nullptr, 0), std::strtoull(rest[1], nullptr, 0), std::strtod(rest[2], nullptr));
    } catch (Status status) {
        return status;
    }
}
