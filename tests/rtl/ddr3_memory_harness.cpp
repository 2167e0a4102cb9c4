// The memory of a board with a DDR3 SDRAM behind its port, with two clocks: it is levelled, then random reads and writes, every
// word compared. Arguments: the chip (all numbers of Ddr3Timing), then SEED CYCLES RATIO, that of the memory's clock to the
// port's, and 1 for one long sequence of full reads.

#include "Vmemory.h"
#include "ddr3.hpp"
#include "memory.hpp"
#include "verilated.h"

#include <array>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <unordered_map>

namespace {

constexpr unsigned RESET_CYCLES = 4, OUTSTANDING = 8, BURST = 32;
using Word = std::array<uint32_t, 4>;

int traffic(Ddr3 &chip, const Ddr3Timing &timing, uint64_t seed, uint64_t cycles, double ratio, bool sequential) {
    std::mt19937_64 random(seed);
    auto below = [&](uint64_t bound) { return random() % bound; };
    auto chance = [&](double p) { return double(random() >> 11) * 0x1p-53 < p; };
    const uint64_t size = (uint64_t(1) << (timing.row_bits + timing.column_bits)) - 4; // words of 16 bytes, below the levelling's
    std::unordered_map<uint64_t, Word> written; // the others are zero
    std::deque<std::pair<uint64_t, Word>> expected;
    std::deque<uint64_t> bursts; // words of each that are still to come
    auto top = std::make_unique<Vmemory>();
    Ddr3Cells cells(chip, unsigned(seed));
    bool reads = false, writes = false;
    uint64_t address = 0, length = 0, next = 0,  target = 0, words = 0, stores = 0, refreshing = 0, since = 0, first = 0;
    Word value{};
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
            top->read_valid = cells.valid;
            for (int k = 0; k < 4; k++)
                top->read_data[k] = cells.valid ? cells.data[k] : uint32_t(random());
            top->seen = cells.seen;
            top->eval();
            if (cycle >= RESET_CYCLES)
                cells.step(commands_of(*top));
        }
        top->rst = cycle < RESET_CYCLES;
        if (cycle % 1024 == 0) {
            read_rate = sequential || chance(0.4) ? 1 : 0.05;
            write_rate = sequential ? 0 : chance(0.3) ? 1 : chance(0.4) ? 0 : 0.1;
        }
        // As the accelerator does: few bursts at once, and no write to a word that is being read.
        if (!reads && bursts.size() < OUTSTANDING && chance(read_rate)) {
            if (!sequential && chance(0.3))
                next = chance(0.5) ? below(size) : target;
            length = sequential ? BURST : 1 + below(BURST);
            if (next + length > size)
                next = 0;
            address = next;
            next += length;
            reads = !writes || target < address || target >= address + length;
        }
        if (!writes && chance(write_rate)) {
            target = (next + below(1 << (timing.column_bits - 3))) % size;
            bool outstanding = reads && target >= address && target < address + length;
            for (const auto &word : expected)
                outstanding |= word.first == target;
            for (uint32_t &part : value)
                part = uint32_t(random());
            mask = unsigned(below(1 << 16));
            writes = !outstanding;
        }
        top->reads_valid = reads;
        top->reads_address = uint32_t(address);
        top->reads_length = uint8_t(length);
        top->write_valid = writes;
        top->write_address = uint32_t(target);
        for (int k = 0; k < 4; k++)
            top->word_data[k] = value[k];
        top->word_mask = uint16_t(mask);
        top->eval();
        if (!top->rst) {
            if (top->data_valid) {
                bool right = !expected.empty();
                for (int k = 0; right && k < 4; k++)
                    right = top->data_read[k] == expected.front().second[k];
                if (!right) {
                    std::fprintf(stderr, "a word that is wrong or that nobody asked for: %08x (cycle %llu)\n", unsigned(top->data_read[0]),
                                 (unsigned long long)cycle);
                    return BAD_ACCESS;
                }
                expected.pop_front();
                if (--bursts.front() == 0)
                    bursts.pop_front();
                words++;
                if (!first)
                    first = cycle;
            }
            since += first != 0;
            refreshing += first && top->refreshing;
            const bool stores_now = writes && top->write_ready;
            if (reads && top->reads_ready) {
                for (uint64_t k = address; k < address + length; k++)
                    expected.push_back({k, written.count(k) ? written[k] : Word{}});
                bursts.push_back(length);
                reads = false;
            }
            if (stores_now) {
                for (unsigned k = 0; k < 16; k++)
                    if (mask >> k & 1) {
                        uint32_t &part = written[target][k / 4];
                        part = (part & ~(0xFFu << 8 * (k % 4))) | (value[k / 4] & 0xFFu << 8 * (k % 4));
                    }
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
        return traffic(chip, timing, std::strtoull(rest[0], nullptr, 0), std::strtoull(rest[1], nullptr, 0), std::strtod(rest[2], nullptr),
                       std::strtoul(rest[3], nullptr, 0));
    } catch (Status status) {
        return status;
    }
}
