// The DDR3 controller with the model of the chip behind it, and that model alone. Arguments: the chip (all numbers of
// Ddr3Timing), then "traffic" SEED CYCLES SEQUENTIAL, or "commands" and one "CLOCK COMMAND BANK ADDRESS" after the other.

#include "Vcontroller.h"
#include "ddr3.hpp"
#include "memory.hpp"
#include "verilated.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>

namespace {

constexpr unsigned RESET_CYCLES = 4;
using Burst = std::array<uint32_t, 4>;

// RESET# is low from the beginning and CKE too; UP ends the one and UP with a bank the other.
int commands(Ddr3 &chip, int count, char **values) {
    constexpr unsigned UP = 8;
    Ddr3::Pins pins;
    pins.reset_n = pins.cke = false;
    int64_t clock = 0, write = -100;
    for (int k = 0; k + 3 < count; k += 4) {
        auto step = [&] {
            pins.driven = clock >= write + Ddr3::CAS_WRITE && clock < write + Ddr3::CAS_WRITE + Ddr3::BURST;
            chip.step(pins);
            pins.command = Ddr3::NOP;
            clock++;
        };
        for (int64_t at = std::strtoll(values[k], nullptr, 0); clock < at;)
            step();
        const unsigned command = unsigned(std::strtoul(values[k + 1], nullptr, 0));
        pins.bank = unsigned(std::strtoul(values[k + 2], nullptr, 0));
        pins.address = unsigned(std::strtoul(values[k + 3], nullptr, 0));
        if (command == UP)
            (pins.bank ? pins.cke : pins.reset_n) = true;
        else
            pins.command = command;
        if (command == Ddr3::WRITE)
            write = clock;
        step();
    }
    return OK;
}

// Reads and writes at random, or one long sequence of full reads; every burst that is read is compared.
int traffic(Ddr3 &chip, const Ddr3Timing &timing, uint64_t seed, uint64_t cycles, bool sequential) {
    constexpr unsigned BURSTS = 1, FULL = 32; // of a write and of a long read
    struct Expected {
        uint64_t address;
        Burst value;
    };
    std::mt19937_64 random(seed);
    auto below = [&](uint64_t bound) { return random() % bound; };
    auto chance = [&](double p) { return double(random() >> 11) * 0x1p-53 < p; };
    const uint64_t size = uint64_t(1) << (timing.row_bits + timing.column_bits); // of 2^3 banks, bursts of 2^3 beats
    std::unordered_map<uint64_t, Burst> written;                                // the others are zero
    std::deque<Expected> expected;
    auto top = std::make_unique<Vcontroller>();
    Ddr3Cells cells(chip);
    bool offered = false, write = false;
    uint64_t address = 0, length = 0, next = 0, bursts = 0, first = 0, refreshing = 0, writes = 0;
    Burst value{};
    uint16_t mask = 0;
    double rate = 1, write_rate = 0; // they change now and then
    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
        top->rst = cycle < RESET_CYCLES;
        if (!sequential && cycle % 1024 == 0) {
            rate = chance(0.3) ? 1 : 0.1;
            write_rate = chance(0.3) ? 1 : chance(0.4) ? 0 : 0.3;
        }
        if (!offered && (sequential || chance(rate))) {
            if (!sequential && chance(0.3))
                next = chance(0.5) ? below(size) : (next + (below(16) << (timing.column_bits - 3))) % size;
            write = !sequential && chance(write_rate);
            length = write ? BURSTS : sequential ? FULL : 1 + below(FULL);
            if (next + length > size)
                next = 0;
            // Now and then what was written before is read at once.
            address = write ? (next + below(4u << (timing.column_bits - 3))) % size & ~uint64_t(BURSTS - 1) : next;
            if (!write)
                next += length;
            else if (chance(0.2))
                next = address;
            for (uint32_t &part : value)
                part = uint32_t(random());
            mask = uint16_t(chance(0.5) ? 0xFFFF : random());
            offered = true;
        }
        top->valid = offered;
        top->write_ = write;
        top->address = uint32_t(address);
        top->length = uint8_t(length);
        for (int k = 0; k < 4; k++) {
            top->data[k] = value[k];
            top->read_data[k] = cells.valid ? cells.data[k] : uint32_t(random());
        }
        top->mask = mask;
        top->read_valid = cells.valid;
        top->clk = 0;
        top->eval();
        if (top->data_valid && !top->rst) {
            if (expected.empty())
                fail(BAD_ACCESS, "a burst that nobody asked for");
            for (int k = 0; k < 4; k++)
                if (top->data_read[k] != expected.front().value[k]) {
                    std::fprintf(stderr, "burst %llx, part %d: %08x instead of %08x (cycle %llu)\n",
                                 (unsigned long long)expected.front().address, k, unsigned(top->data_read[k]),
                                 unsigned(expected.front().value[k]), (unsigned long long)cycle);
                    return BAD_ACCESS;
                }
            expected.pop_front();
            bursts++;
            if (!first)
                first = cycle;
        }
        refreshing += first && top->refreshing;
        if (!top->rst)
            cells.step(commands_of(*top));
        if (offered && top->accepted && !top->rst) {
            for (uint64_t k = 0; k < length; k++) {
                Burst &burst = written[address + k];
                if (write) {
                    for (unsigned byte = 0; byte < 16; byte++)
                        if (mask >> byte & 1) {
                            const uint32_t bits = 0xFFu << 8 * (byte % 4);
                            burst[byte / 4] = (burst[byte / 4] & ~bits) | (value[byte / 4] & bits);
                        }
                } else {
                    expected.push_back({address + k, burst});
                }
            }
            writes += write;
            offered = false;
        }
        top->clk = 1;
        top->eval();
    }
    std::printf("bursts %llu writes %llu since %llu refreshing %llu waiting %zu refreshes %llu\n", (unsigned long long)bursts,
                (unsigned long long)writes, (unsigned long long)(cycles - first), (unsigned long long)refreshing, expected.size(),
                (unsigned long long)chip.counts.commands[Ddr3::REFRESH]);
    return OK;
}

} // namespace

int main(int argc, char **argv) {
    if (argc <= DDR3_NUMBERS + 1)
        return USAGE;
    uint64_t numbers[DDR3_NUMBERS];
    for (int k = 0; k < DDR3_NUMBERS; k++)
        numbers[k] = std::strtoull(argv[1 + k], nullptr, 0);
    const Ddr3Timing timing = ddr3_timing(numbers);
    char **rest = argv + DDR3_NUMBERS + 1;
    try {
        Content content(uint64_t(16) << (timing.row_bits + timing.column_bits));
        Ddr3 chip(timing, content.at(0));
        if (std::string(rest[0]) == "commands")
            return commands(chip, argc - DDR3_NUMBERS - 2, rest + 1);
        return traffic(chip, timing, std::strtoull(rest[1], nullptr, 0), std::strtoull(rest[2], nullptr, 0),
                       std::strtoul(rest[3], nullptr, 0));
    } catch (Status status) {
        return status;
    }
}
