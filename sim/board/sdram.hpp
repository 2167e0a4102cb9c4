// Model of an SDR SDRAM of 16 bits and four banks at its pins. Every time of the data sheet is checked, in picoseconds; the
// first violation ends the run with a line that names it, the bank and the cycle.
#pragma once

#include "memory.hpp"
#include "status.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

struct SdramTiming {
    uint64_t clock_ps;
    unsigned row_bits, column_bits;
    uint64_t rcd, rp, ras, ras_max, rc, rrd, rfc, wr, mrd, refresh, init; // picoseconds, as in hw/memory/sdram.py
    unsigned refreshes_at_init;                                        // before LOAD MODE
    unsigned postponed;                                                // REFRESH commands that may be missing at any time
    uint64_t cas2_ps;                                                  // shortest clock period at a CAS latency of 2
};

class Sdram {
  public:
    enum Command : unsigned { LOAD_MODE, REFRESH, PRECHARGE, ACTIVATE, WRITE, READ, STOP, NOP };
    struct Pins {
        unsigned command = NOP, bank = 0, address = 0, mask = 0; // command: ras_n, cas_n, we_n from bit 2 down
        bool selected = true, driven = false;                    // cs_n low; the controller drives the data lines
        uint16_t data = 0;
    };
    struct Counts {
        uint64_t commands[8] = {}, cycles = 0;
        uint64_t toggles = 0; // of all pins but the clock; lines that nobody drives keep their value
    };

  private:
    static constexpr unsigned BANKS = 4;
    static constexpr int64_t NEVER = -(int64_t(1) << 60);
    struct Bank {
        bool open = false;
        unsigned row = 0;
        int64_t activated = NEVER, precharged = NEVER, written = NEVER;
    };
    const SdramTiming timing_;
    const Share share_;
    const unsigned halves_;
    uint16_t *words_;
    Bank banks_[BANKS];
    int64_t now_ = 0, refreshed_ = NEVER, any_activated_ = NEVER, mode_set_ = NEVER, refresh_debt_from_ = 0;
    uint64_t refreshes_ = 0;
    unsigned cas_ = 0; // 0: no mode yet
    bool due_[4] = {}; // what the chip drives in this cycle and the next three
    uint16_t out_[4] = {};
    uint64_t noise_ = 1; // what nobody drives
    bool drove_ = false; // in the cycle before
    uint64_t pins_ = 0;  // in the cycle before

    [[noreturn]] void violation(const char *what, int bank, int64_t is, int64_t must) const {
        char text[200];
        std::snprintf(text, sizeof text, "SDRAM: %s violated, bank %d: %.2f ns, data sheet %.2f ns (cycle %llu)", what, bank,
                      double(is) / 1000, double(must) / 1000, (unsigned long long)counts.cycles);
        fail(BAD_ACCESS, text);
    }

    [[noreturn]] void wrong(const char *what, int bank) const {
        char text[200];
        std::snprintf(text, sizeof text, "SDRAM: %s, bank %d (cycle %llu)", what, bank, (unsigned long long)counts.cycles);
        fail(BAD_ACCESS, text);
    }

    void at_least(const char *what, int bank, int64_t since, uint64_t must) const {
        if (now_ - since < int64_t(must))
            violation(what, bank, now_ - since, int64_t(must));
    }

    void close(unsigned bank) {
        Bank &b = banks_[bank];
        if (!b.open && cas_)
            return; // allowed, does nothing
        if (b.open) {
            at_least("tRAS", int(bank), b.activated, timing_.ras);
            at_least("tWR", int(bank), b.written, timing_.wr);
        }
        b.open = false;
        b.precharged = now_;
    }

    void activate(unsigned bank, unsigned row) {
        Bank &b = banks_[bank];
        if (!cas_)
            wrong("ACTIVATE before LOAD MODE", int(bank));
        if (b.open)
            wrong("ACTIVATE of an open bank", int(bank));
        at_least("tRP", int(bank), b.precharged, timing_.rp);
        at_least("tRC", int(bank), b.activated, timing_.rc);
        at_least("tRRD", int(bank), any_activated_, timing_.rrd);
        at_least("tRFC", int(bank), refreshed_, timing_.rfc);
        b.open = true;
        b.row = row;
        b.activated = any_activated_ = now_;
    }

    void refresh() {
        for (unsigned k = 0; k < BANKS; k++) {
            if (banks_[k].open)
                wrong("REFRESH with an open bank", int(k));
            if (banks_[k].precharged == NEVER)
                wrong("REFRESH before PRECHARGE", int(k));
            at_least("tRP", int(k), banks_[k].precharged, timing_.rp);
        }
        at_least("tRFC", -1, refreshed_, timing_.rfc);
        refreshed_ = now_;
        refreshes_++;
        refresh_debt_from_ += int64_t(timing_.refresh);
    }

    void load_mode(unsigned mode) {
        for (unsigned k = 0; k < BANKS; k++)
            if (banks_[k].open)
                wrong("LOAD MODE with an open bank", int(k));
        if (refreshes_ < timing_.refreshes_at_init)
            wrong("LOAD MODE before all REFRESHes of the initialisation", -1);
        at_least("tRFC", -1, refreshed_, timing_.rfc);
        unsigned cas = mode >> 4 & 7;
        if ((mode & 7) != 0 || (cas != 2 && cas != 3))
            wrong("a mode other than burst length 1 with a CAS latency of 2 or 3", -1);
        if (cas == 2 && timing_.clock_ps < timing_.cas2_ps)
            wrong("a CAS latency of 2 at this clock", -1);
        cas_ = cas;
        mode_set_ = now_;
        refresh_debt_from_ = now_;
    }

    // A mask keeps the bytes of two cycles later off the data lines, whatever the CAS latency: a DQM pin in a read.
    void hide(unsigned mask) {
        if (!mask || !due_[1])
            return;
        noise_ = noise_ * 6364136223846793005u + 1442695040888963407u;
        const uint16_t bits = uint16_t((mask & 1 ? 0x00FF : 0) | (mask & 2 ? 0xFF00 : 0));
        out_[1] = uint16_t((out_[1] & ~bits) | (uint16_t(noise_ >> 48) & bits));
        due_[1] = mask != 3; // both: the lines are free
    }

    uint16_t *word(unsigned bank, unsigned column) {
        const Bank &b = banks_[bank];
        if (!b.open)
            wrong("READ or WRITE in a closed bank", int(bank));
        at_least("tRCD", int(bank), b.activated, timing_.rcd);
        const uint64_t at = ((uint64_t(b.row) << 2 | bank) << timing_.column_bits) | (column & ((1u << timing_.column_bits) - 1));
        return words_ + (at / halves_ * share_.engines + share_.engine) * halves_ + at % halves_;
    }

  public:
    Counts counts;
    uint16_t data = 0;   // what the chip drives in the present cycle
    bool driving = false;

    // `content`: 2^(row_bits + 2 + column_bits) words for each engine, addressed by row, bank, column; engines take turns
    // after a word of the port, of `halves` words.
    Sdram(const SdramTiming &timing, uint8_t *content, const Share &share = {}, unsigned halves = 1)
        : timing_(timing), share_(share), halves_(halves), words_(reinterpret_cast<uint16_t *>(content)) {}

    void count_toggles(const Pins &pins) {
        const uint64_t lines = driving ? data : pins.driven ? pins.data : pins_ & 0xFFFF;
        const uint64_t now = lines | uint64_t(pins.command) << 16 | uint64_t(pins.selected) << 19 | uint64_t(pins.bank) << 20 |
                             uint64_t(pins.mask) << 22 | uint64_t(pins.address) << 24;
        counts.toggles += uint64_t(__builtin_popcountll(now ^ pins_));
        pins_ = now;
    }

    // The chip takes the pins of the present cycle at its end; `data` then belongs to the next one.
    void step(const Pins &pins) {
        now_ = int64_t(counts.cycles * timing_.clock_ps);
        count_toggles(pins);
        if (pins.driven && (driving || drove_))
            wrong("both ends drive the data lines, or without a cycle between them", -1);
        unsigned command = pins.selected ? pins.command : unsigned(NOP);
        counts.commands[command]++;
        if (command != NOP) {
            if (now_ < int64_t(timing_.init))
                violation("the pause after power-up", -1, now_, int64_t(timing_.init));
            if (mode_set_ != NEVER)
                at_least("tMRD", -1, mode_set_, timing_.mrd);
        }
        for (unsigned k = 0; k < BANKS; k++)
            if (banks_[k].open && now_ - banks_[k].activated > int64_t(timing_.ras_max))
                violation("tRAS (longest)", int(k), now_ - banks_[k].activated, int64_t(timing_.ras_max));
        if (cas_ && now_ - refresh_debt_from_ > int64_t(timing_.refresh * (1 + timing_.postponed)))
            violation("tREFI", -1, now_ - refresh_debt_from_, int64_t(timing_.refresh * (1 + timing_.postponed)));
        switch (command) {
        case LOAD_MODE: load_mode(pins.address); break;
        case REFRESH: refresh(); break;
        case PRECHARGE:
            for (unsigned k = 0; k < BANKS; k++)
                if (pins.address >> 10 & 1 || k == pins.bank)
                    close(k);
            break;
        case ACTIVATE: activate(pins.bank, pins.address & ((1u << timing_.row_bits) - 1)); break;
        case READ:
            if (pins.address >> 10 & 1 && timing_.column_bits <= 10)
                wrong("READ with automatic precharge", int(pins.bank));
            out_[cas_ - 1] = *word(pins.bank, pins.address);
            due_[cas_ - 1] = true;
            break;
        case WRITE: {
            uint16_t *target = word(pins.bank, pins.address);
            if (!pins.driven)
                wrong("WRITE without data", int(pins.bank));
            uint16_t keep = uint16_t((pins.mask & 1 ? 0x00FF : 0) | (pins.mask & 2 ? 0xFF00 : 0));
            *target = uint16_t((*target & keep) | (pins.data & ~keep));
            banks_[pins.bank].written = now_;
            break;
        }
        default: break;
        }
        hide(pins.mask & 3);
        drove_ = driving;
        driving = due_[0];
        data = out_[0];
        std::copy(due_ + 1, due_ + 4, due_);
        std::copy(out_ + 1, out_ + 4, out_);
        due_[3] = false;
        counts.cycles++;
    }
};

// The pins of a Verilator model that has them as ports, in the present cycle.
template <class Model> Sdram::Pins pins_of(const Model &model) {
    Sdram::Pins pins;
    pins.selected = !model.cs_n && model.cke;
    pins.command = unsigned(model.ras_n << 2 | model.cas_n << 1 | model.we_n);
    pins.bank = model.ba;
    pins.address = model.a;
    pins.mask = model.dqm;
    pins.driven = model.dq_oe;
    pins.data = model.dq_o;
    return pins;
}

// The numbers of sim/board/sdram.py in their order.
constexpr int SDRAM_NUMBERS = 16;
inline SdramTiming sdram_timing(const uint64_t *n) {
    return {n[0], unsigned(n[1]), unsigned(n[2]), n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13], unsigned(n[14]),
            unsigned(n[15] >> 32), n[15] & 0xFFFFFFFF};
}
