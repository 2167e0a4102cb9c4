// The SDRAM controller with the model of the chip at its pins, and that model alone. Arguments: the chip (all numbers of
// SdramTiming), then "traffic" SEED CYCLES SEQUENTIAL, or "commands" and one "CYCLE COMMAND BANK ADDRESS" after the other.

#include "Vcontroller.h"
#include "sdram.hpp"
#include "verilated.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>

namespace {

constexpr unsigned RESET_CYCLES = 4;

int commands(Sdram &chip, int count, char **values) {
    uint64_t cycle = 0;
    for (int k = 0; k + 3 < count; k += 4) {
        Sdram::Pins pins;
        for (uint64_t at = std::strtoull(values[k], nullptr, 0); cycle < at; cycle++)
            chip.step(pins);
        pins.command = unsigned(std::strtoul(values[k + 1], nullptr, 0));
        pins.bank = unsigned(std::strtoul(values[k + 2], nullptr, 0));
        pins.address = unsigned(std::strtoul(values[k + 3], nullptr, 0));
        pins.driven = pins.command == Sdram::WRITE;
        chip.step(pins);
        cycle++;
    }
    return OK;
}

// Reads and writes at random, or one long sequence of full reads; every word that is read is compared.
int traffic(Sdram &chip, const SdramTiming &timing, uint64_t seed, uint64_t cycles, bool sequential) {
    constexpr unsigned WORDS = 2, FULL = 64; // words of a write and of a long read
    struct Word {
        uint64_t address;
        uint16_t value;
    };
    std::mt19937_64 random(seed);
    auto below = [&](uint64_t bound) { return random() % bound; };
    auto chance = [&](double p) { return double(random() >> 11) * 0x1p-53 < p; };
    const uint64_t size = uint64_t(1) << (timing.row_bits + 2 + timing.column_bits);
    std::unordered_map<uint64_t, uint16_t> written; // the others are zero
    std::deque<Word> expected;
    auto top = std::make_unique<Vcontroller>();
    bool offered = false, write = false;
    uint64_t address = 0, length = 0, next = 0, words = 0, first = 0, refreshing = 0, writes = 0;
    uint32_t value = 0;
    unsigned mask = 0;
    double rate = 1, write_rate = 0; // they change now and then
    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
        top->rst = cycle < RESET_CYCLES;
        if (!sequential && cycle % 1024 == 0) {
            rate = chance(0.3) ? 1 : 0.1;
            write_rate = chance(0.3) ? 1 : chance(0.4) ? 0 : 0.3;
        }
        if (!offered && (sequential || chance(rate))) {
            if (!sequential && chance(0.3))
                next = chance(0.5) ? below(size) : (next + (below(8) << timing.column_bits)) % size;
            write = !sequential && chance(write_rate);
            length = write ? WORDS : sequential ? FULL : 1 + below(FULL);
            if (next + length > size)
                next = 0;
            // Now and then what was written before is read at once.
            address = write ? (next + below(4u << timing.column_bits)) % size & ~uint64_t(WORDS - 1) : next;
            if (!write)
                next += length;
            else if (chance(0.2))
                next = address;
            value = uint32_t(random());
            mask = unsigned(below(1 << 2 * WORDS));
            offered = true;
        }
        top->valid = offered;
        top->write_ = write;
        top->address = uint32_t(address);
        top->length = uint8_t(length);
        top->data = value;
        top->mask = uint8_t(mask);
        top->dq_i = chip.driving ? chip.data : uint16_t(random());
        top->clk = 0;
        top->eval();
        if (top->data_valid && !top->rst) {
            if (expected.empty())
                fail(BAD_ACCESS, "a word that nobody asked for");
            if (top->data_read != expected.front().value) {
                std::fprintf(stderr, "word %llx: %04x instead of %04x (cycle %llu)\n", (unsigned long long)expected.front().address,
                             unsigned(top->data_read), expected.front().value, (unsigned long long)cycle);
                return BAD_ACCESS;
            }
            expected.pop_front();
            words++;
            if (!first)
                first = cycle;
        }
        refreshing += first && top->refreshing;
        if (!top->rst)
            chip.step(pins_of(*top));
        if (offered && top->accepted && !top->rst) {
            for (uint64_t k = 0; k < length; k++) {
                uint16_t &word = written[address + k];
                if (write) {
                    uint16_t enabled = uint16_t((mask >> 2 * k & 1 ? 0x00FF : 0) | (mask >> 2 * k & 2 ? 0xFF00 : 0));
                    word = uint16_t((word & ~enabled) | (value >> 16 * k & enabled));
                } else {
                    expected.push_back({address + k, word});
                }
            }
            writes += write;
            offered = false;
        }
        top->clk = 1;
        top->eval();
    }
    std::printf("words %llu writes %llu since %llu refreshing %llu waiting %zu refreshes %llu\n", (unsigned long long)words,
                (unsigned long long)writes, (unsigned long long)(cycles - first), (unsigned long long)refreshing, expected.size(),
                (unsigned long long)chip.counts.commands[Sdram::REFRESH]);
    return OK;
}

} // namespace

int main(int argc, char **argv) {
    constexpr int CHIP = SDRAM_NUMBERS;
    if (argc <= CHIP + 1)
        return USAGE;
    uint64_t n[CHIP];
    for (int k = 0; k < CHIP; k++)
        n[k] = std::strtoull(argv[1 + k], nullptr, 0);
    const SdramTiming timing = sdram_timing(n);
    try {
        std::vector<uint8_t> content(uint64_t(2) << (timing.row_bits + 2 + timing.column_bits));
        Sdram chip(timing, content.data());
        std::string what = argv[CHIP + 1];
        if (what == "commands")
            return commands(chip, argc - CHIP - 2, argv + CHIP + 2);
        return traffic(chip, timing, std::strtoull(argv[CHIP + 2], nullptr, 0), std::strtoull(argv[CHIP + 3], nullptr, 0),
                       std::strtoul(argv[CHIP + 4], nullptr, 0));
    } catch (Status status) {
        return status;
    }
}
