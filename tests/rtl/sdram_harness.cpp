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

// Bursts and writes at random, or one long sequence of full bursts; every word that is read is compared.
int traffic(Sdram &chip, const SdramTiming &timing, uint64_t seed, uint64_t cycles, bool sequential) {
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
    bool read_offered = false, write_offered = false;
    uint64_t address = 0, length = 0, next = 0, target = 0, words = 0, first = 0, refreshing = 0, writes = 0;
    uint16_t value = 0;
    unsigned mask = 0;
    // How busy the two streams are changes now and then, so that queues fill and run dry.
    double reads_rate = 1, writes_rate = 0;
    top->rst = 1;
    for (uint64_t cycle = 0; cycle < cycles; cycle++) {
        top->rst = cycle < RESET_CYCLES;
        if (!sequential && cycle % 1024 == 0) {
            reads_rate = chance(0.3) ? 1 : chance(0.3) ? 0 : 0.1;
            writes_rate = chance(0.3) ? 1 : chance(0.4) ? 0 : 0.05;
        }
        if (!read_offered && (sequential || chance(reads_rate))) {
            if (!sequential && chance(0.3))
                next = chance(0.5) ? below(size) : (next + (below(8) << timing.column_bits)) % size;
            length = sequential ? 32 : 1 + below(32);
            if (next + length > size)
                next = 0;
            address = next;
            next += length;
            // Nor is that of a read which overtakes a write that waits.
            read_offered = !write_offered || target < address || target >= address + length;
        }
        if (!write_offered && !sequential && chance(writes_rate)) {
            target = (next + below(4u << timing.column_bits)) % size;
            bool outstanding = read_offered && target >= address && target < address + length;
            for (const Word &word : expected)
                outstanding |= word.address == target;
            if (!outstanding) { // such a read's value is not defined
                value = uint16_t(random());
                mask = unsigned(below(4));
                write_offered = true;
            }
        }
        top->read_valid = read_offered;
        top->read_address = uint32_t(address);
        top->read_length = uint8_t(length);
        top->write_valid = write_offered;
        top->write_address = uint32_t(target);
        top->write_data = value;
        top->write_mask = uint8_t(mask);
        top->dq_i = chip.driving ? chip.data : uint16_t(random());
        top->clk = 0;
        top->eval();
        bool reads = read_offered && top->read_ready && !top->rst, writes_now = write_offered && top->write_ready && !top->rst;
        if (top->data_valid && !top->rst) {
            if (expected.empty())
                fail(BAD_ACCESS, "a word that nobody asked for");
            if (top->data != expected.front().value) {
                std::fprintf(stderr, "word %llx: %04x instead of %04x (cycle %llu)\n", (unsigned long long)expected.front().address,
                             unsigned(top->data), expected.front().value, (unsigned long long)cycle);
                return BAD_ACCESS;
            }
            expected.pop_front();
            words++;
            if (!first)
                first = cycle;
        }
        refreshing += first && top->refreshing;
        Sdram::Pins pins;
        pins.selected = !top->cs_n && top->cke;
        pins.command = unsigned(top->ras_n << 2 | top->cas_n << 1 | top->we_n);
        pins.bank = top->ba;
        pins.address = top->a;
        pins.mask = top->dqm;
        pins.driven = top->dq_oe;
        pins.data = top->dq_o;
        if (!top->rst)
            chip.step(pins);
        if (reads) {
            for (uint64_t k = address; k < address + length; k++)
                expected.push_back({k, written.count(k) ? written[k] : uint16_t(0)});
            read_offered = false;
        }
        if (writes_now) {
            uint16_t kept = uint16_t((mask & 1 ? 0 : 0x00FF) | (mask & 2 ? 0 : 0xFF00));
            written[target] = uint16_t(((written.count(target) ? written[target] : 0) & kept) | (value & ~kept));
            write_offered = false;
            writes++;
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
    constexpr int CHIP = 16;
    if (argc <= CHIP + 1)
        return USAGE;
    uint64_t n[CHIP];
    for (int k = 0; k < CHIP; k++)
        n[k] = std::strtoull(argv[1 + k], nullptr, 0);
    const SdramTiming timing{n[0], unsigned(n[1]), unsigned(n[2]), n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13],
                             unsigned(n[14]), unsigned(n[15] >> 32), n[15] & 0xFFFFFFFF};
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
