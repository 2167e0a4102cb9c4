// Random reads and writes at the port of a memory that has a clock of its own, as an accelerator makes them; every word is
// compared.

#pragma once

#include "Vmemory.h"
#include "verilated.h"

#include <array>
#include <cstdio>
#include <deque>
#include <memory>
#include <random>
#include <unordered_map>

constexpr unsigned RESET_CYCLES = 4, OUTSTANDING = 8, BURST = 32;

inline IData &part(IData &word, size_t) { return word; }
template <size_t N> EData &part(VlWide<N> &word, size_t k) { return word[k]; }

// What follows an edge of the memory's clock and what its words are, Board:
//   PARTS                         words of 32 bits in one of the port
//   size, near                    words that the memory has; writes go to one of so many behind the reads
//   edge(top, random, steps)      drives what the chip gives; `steps`: not in reset
//   counts(top, begun)            whether this cycle counts as one in which words might come; `begun`: one has come
template <class Board>
int traffic(Board &board, uint64_t seed, uint64_t cycles, double ratio, bool sequential) {
    using Word = std::array<uint32_t, Board::PARTS>;
    std::mt19937_64 random(seed);
    auto below = [&](uint64_t bound) { return random() % bound; };
    auto chance = [&](double p) { return double(random() >> 11) * 0x1p-53 < p; };
    std::unordered_map<uint64_t, Word> written; // the others are zero
    std::deque<std::pair<uint64_t, Word>> expected;
    std::deque<uint64_t> bursts; // words of each that are still to come
    auto top = std::make_unique<Vmemory>();
    bool reads = false, writes = false;
    uint64_t address = 0, length = 0, next = 0, target = 0, words = 0, stores = 0, refreshing = 0, since = 0;
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
            board.edge(*top, random, cycle >= RESET_CYCLES);
        }
        top->rst = cycle < RESET_CYCLES;
        if (cycle % 1024 == 0) {
            read_rate = sequential || chance(0.4) ? 1 : 0.05;
            write_rate = sequential ? 0 : chance(0.3) ? 1 : chance(0.4) ? 0 : 0.1;
        }
        // Few bursts at once, and no write to a word that is being read.
        if (!reads && bursts.size() < OUTSTANDING && chance(read_rate)) {
            if (!sequential && chance(0.3))
                next = chance(0.5) ? below(board.size) : target;
            length = sequential ? BURST : 1 + below(BURST);
            if (next + length > board.size)
                next = 0;
            address = next;
            next += length;
            reads = !writes || target < address || target >= address + length;
        }
        if (!writes && chance(write_rate)) {
            target = (next + below(board.near)) % board.size;
            bool outstanding = reads && target >= address && target < address + length;
            for (const auto &word : expected)
                outstanding |= word.first == target;
            for (uint32_t &each : value)
                each = uint32_t(random());
            mask = unsigned(below(1 << 4 * Board::PARTS));
            writes = !outstanding;
        }
        top->reads_valid = reads;
        top->reads_address = uint32_t(address);
        top->reads_length = uint8_t(length);
        top->write_valid = writes;
        top->write_address = uint32_t(target);
        for (size_t k = 0; k < Board::PARTS; k++)
            part(top->word_data, k) = value[k];
        top->word_mask = decltype(top->word_mask)(mask);
        top->eval();
        if (!top->rst) {
            if (top->data_valid) {
                bool right = !expected.empty();
                for (size_t k = 0; right && k < Board::PARTS; k++)
                    right = part(top->data_read, k) == expected.front().second[k];
                if (!right) {
                    std::fprintf(stderr, "a word that is wrong or that nobody asked for: %08x (cycle %llu)\n",
                                 unsigned(part(top->data_read, 0)), (unsigned long long)cycle);
                    return BAD_ACCESS;
                }
                expected.pop_front();
                if (--bursts.front() == 0)
                    bursts.pop_front();
                words++;
            }
            const bool counts = board.counts(*top, words != 0);
            since += counts;
            refreshing += counts && top->refreshing;
            const bool stores_now = writes && top->write_ready;
            if (reads && top->reads_ready) {
                for (uint64_t k = address; k < address + length; k++)
                    expected.push_back({k, written.count(k) ? written[k] : Word{}});
                bursts.push_back(length);
                reads = false;
            }
            if (stores_now) {
                for (unsigned k = 0; k < 4 * Board::PARTS; k++)
                    if (mask >> k & 1) {
                        uint32_t &each = written[target][k / 4];
                        each = (each & ~(0xFFu << 8 * (k % 4))) | (value[k / 4] & 0xFFu << 8 * (k % 4));
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
