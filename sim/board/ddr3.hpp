// Model of a DDR3 SDRAM of 16 bits and eight banks, clock by clock, and of the cells between it and its controller. Every
// time of the data sheet is checked, in picoseconds; the first violation ends the run with a line that names it, the bank and
// the clock. Rules: JESD79-3F, sections 3.3 (initialisation), 4 (commands) and 13 (times).
#pragma once

#include "status.hpp"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>

struct Ddr3Timing {
    uint64_t clock_ps, row_bits, column_bits;
    uint64_t aa, rcd, rp, ras, rc, rrd, faw, rfc, xpr, wr, wtr, rtp, ccd, mrd, mod, zq_init, dll; // picoseconds
    uint64_t ras_max, refresh, reset, cke;
    uint64_t postponed;                  // REFRESH commands that may be missing at any time
    uint64_t shortest_ps, longest_ps;    // clock periods at a CAS latency of 5
};
constexpr int DDR3_NUMBERS = sizeof(Ddr3Timing) / sizeof(uint64_t);
inline Ddr3Timing ddr3_timing(const uint64_t *numbers) {
    Ddr3Timing timing;
    std::memcpy(&timing, numbers, sizeof timing);
    return timing;
}

class Ddr3 {
  public:
    enum Command : unsigned { MODE, REFRESH, PRECHARGE, ACTIVATE, WRITE, READ, CALIBRATE, NOP };
    static constexpr int CAS = 5, CAS_WRITE = 5, BURST = 4; // clocks
    struct Pins {
        bool reset_n = true, cke = true, driven = false; // driven: by the controller, data and strobes
        unsigned command = NOP, bank = 0, address = 0;
        uint16_t data[2] = {0, 0};
        uint8_t mask[2] = {0, 0}; // DM: bit k keeps byte k of a beat
    };
    struct Counts {
        uint64_t commands[8] = {}, clocks = 0;
    };

  private:
    static constexpr unsigned BANKS = 8;
    static constexpr int64_t NEVER = -(int64_t(1) << 60);
    struct Bank {
        bool open = false;
        unsigned row = 0;
        int64_t activated = NEVER, precharged = NEVER, read = NEVER, written = NEVER;
    };
    struct Burst {
        int64_t clock; // of its first two beats
        uint16_t *words;
    };
    const Ddr3Timing timing_;
    uint16_t *content_;
    Bank banks_[BANKS];
    int64_t now_ = 0, clock_ = 0;
    int64_t reset_until_ = NEVER, enabled_ = NEVER, mode_set_ = NEVER, dll_reset_ = NEVER, calibrated_ = NEVER, refreshed_ = NEVER;
    int64_t activated_[4] = {NEVER, NEVER, NEVER, NEVER}, read_ = NEVER, write_ = NEVER, debt_from_ = 0;
    unsigned modes_ = 0; // bit k: mode register k was set
    bool was_reset_ = false;
    std::deque<Burst> reads_, writes_;

    [[noreturn]] void violation(const char *what, int bank, int64_t is, int64_t must) const {
        char text[200];
        std::snprintf(text, sizeof text, "DDR3: %s violated, bank %d: %.2f ns, data sheet %.2f ns (clock %lld)", what, bank,
                      double(is) / 1000, double(must) / 1000, (long long)clock_);
        fail(BAD_ACCESS, text);
    }

    [[noreturn]] void wrong(const char *what, int bank) const {
        char text[200];
        std::snprintf(text, sizeof text, "DDR3: %s, bank %d (clock %lld)", what, bank, (long long)clock_);
        fail(BAD_ACCESS, text);
    }

    void at_least(const char *what, int bank, int64_t since, uint64_t must) const {
        if (now_ - since < int64_t(must))
            violation(what, bank, now_ - since, int64_t(must));
    }

    int64_t clocks(int64_t number) const { return number * int64_t(timing_.clock_ps); }

    void close(unsigned k) {
        Bank &bank = banks_[k];
        if (!bank.open)
            return; // allowed, does nothing
        at_least("tRAS", int(k), bank.activated, timing_.ras);
        at_least("tRTP", int(k), bank.read, timing_.rtp);
        at_least("tWR", int(k), bank.written + clocks(CAS_WRITE + BURST), timing_.wr);
        bank.open = false;
        bank.precharged = now_;
    }

    void activate(unsigned k, unsigned row) {
        Bank &bank = banks_[k];
        if (bank.open)
            wrong("ACTIVATE of an open bank", int(k));
        at_least("tRP", int(k), bank.precharged, timing_.rp);
        at_least("tRC", int(k), bank.activated, timing_.rc);
        at_least("tRRD", int(k), activated_[3], timing_.rrd);
        at_least("tFAW", int(k), activated_[0], timing_.faw);
        bank.open = true;
        bank.row = row;
        bank.activated = now_;
        for (int i = 0; i < 3; i++)
            activated_[i] = activated_[i + 1];
        activated_[3] = now_;
    }

    void refresh() {
        for (unsigned k = 0; k < BANKS; k++) {
            if (banks_[k].open)
                wrong("REFRESH with an open bank", int(k));
            at_least("tRP", int(k), banks_[k].precharged, timing_.rp);
        }
        refreshed_ = now_;
        debt_from_ += int64_t(timing_.refresh);
        if (debt_from_ > now_ + int64_t(timing_.postponed * timing_.refresh))
            wrong("more REFRESHes ahead of time than may be", -1);
    }

    void mode(unsigned number, unsigned value) {
        for (unsigned k = 0; k < BANKS; k++)
            if (banks_[k].open)
                wrong("MODE with an open bank", int(k));
        if (number > 3)
            wrong("a mode register that is not there", int(number));
        if (number == 0) {
            if ((value & 3) != 0 || (value & 8) || (value >> 4 & 7) != CAS - 4 || (value & 4))
                wrong("a mode other than bursts of eight in sequence with a CAS latency of 5", -1);
            if (timing_.clock_ps < timing_.shortest_ps || timing_.clock_ps > timing_.longest_ps)
                wrong("a CAS latency of 5 at this clock", -1);
            if (!(value >> 8 & 1) && dll_reset_ == NEVER)
                wrong("no reset of the DLL", -1);
            dll_reset_ = now_;
        }
        if (number == 1 && (value & 1))
            wrong("the DLL is off", -1);
        if (number == 2 && (value >> 3 & 7) != CAS_WRITE - 5)
            wrong("a CAS latency of writes other than 5", -1);
        if (number == 3 && (value & 4))
            wrong("reads of the multi-purpose register", -1);
        modes_ |= 1u << number;
        mode_set_ = now_;
    }

    uint16_t *words(unsigned k, unsigned column) {
        const Bank &bank = banks_[k];
        if (!bank.open)
            wrong("READ or WRITE in a closed bank", int(k));
        if (column >> 10 & 1)
            wrong("READ or WRITE with automatic precharge", int(k));
        if (column & 7)
            wrong("a burst from a column that is no multiple of eight", int(k));
        at_least("tRCD", int(k), bank.activated, timing_.rcd);
        at_least("tDLLK", int(k), dll_reset_, timing_.dll);
        const uint64_t page = uint64_t(bank.row) << 3 | k;
        return content_ + ((page << timing_.column_bits) | (column & ((1u << timing_.column_bits) - 1)));
    }

    void read(unsigned k, unsigned column) {
        uint16_t *from = words(k, column);
        at_least("tCCD", int(k), read_, timing_.ccd);
        at_least("tWTR", int(k), write_ + clocks(CAS_WRITE + BURST), timing_.wtr);
        if (clocks(CAS) < int64_t(timing_.aa))
            violation("tAA", int(k), clocks(CAS), int64_t(timing_.aa));
        banks_[k].read = read_ = now_;
        reads_.push_back({clock_ + CAS, from});
    }

    void write(unsigned k, unsigned column) {
        uint16_t *to = words(k, column);
        at_least("tCCD", int(k), write_, timing_.ccd);
        at_least("the turn from READ to WRITE", int(k), read_, uint64_t(clocks(CAS + 2 - CAS_WRITE)) + timing_.ccd);
        banks_[k].written = write_ = now_;
        writes_.push_back({clock_ + CAS_WRITE, to});
    }

    void levels(const Pins &pins) {
        if (!pins.reset_n) {
            if (pins.cke)
                wrong("CKE is high in a reset", -1);
            was_reset_ = true;
            reset_until_ = now_ + int64_t(timing_.clock_ps);
            enabled_ = NEVER;
            modes_ = 0;
            calibrated_ = dll_reset_ = NEVER;
            for (Bank &bank : banks_)
                bank = Bank();
            return;
        }
        if (!was_reset_)
            wrong("no reset after power-up", -1);
        if (reset_until_ < int64_t(timing_.reset))
            violation("the reset after power-up", -1, reset_until_, int64_t(timing_.reset));
        if (pins.cke && enabled_ == NEVER) {
            at_least("the pause from RESET# to CKE", -1, reset_until_, timing_.cke);
            enabled_ = now_;
        }
        if (!pins.cke && enabled_ != NEVER)
            wrong("CKE is low after the initialisation", -1);
    }

    void check_state(unsigned command, unsigned bank) {
        if (enabled_ == NEVER)
            wrong("a command before CKE", int(bank));
        at_least("tXPR", int(bank), enabled_, timing_.xpr);
        at_least("tRFC", int(bank), refreshed_, timing_.rfc);
        at_least("tZQinit", int(bank), calibrated_, timing_.zq_init);
        at_least(command == MODE ? "tMRD" : "tMOD", int(bank), mode_set_, command == MODE ? timing_.mrd : timing_.mod);
        if (command == MODE)
            return;
        if (modes_ != 15)
            wrong("a command before all mode registers are set", int(bank));
        if (command == CALIBRATE)
            return;
        if (calibrated_ == NEVER)
            wrong("a command before the calibration", int(bank));
    }

  public:
    Counts counts;
    bool driving = false;       // the chip, in the present clock
    uint16_t data[2] = {0, 0};

    // `content`: 2^(row_bits + 3 + column_bits) words, addressed by row, bank, column.
    Ddr3(const Ddr3Timing &timing, uint8_t *content) : timing_(timing), content_(reinterpret_cast<uint16_t *>(content)) {}

    // One clock: its command, its two beats in either direction.
    void step(const Pins &pins) {
        now_ = clocks(clock_);
        levels(pins);
        counts.commands[pins.command]++;
        if (pins.command != NOP)
            check_state(pins.command, pins.bank);
        for (unsigned k = 0; k < BANKS; k++)
            if (banks_[k].open && now_ - banks_[k].activated > int64_t(timing_.ras_max))
                violation("tRAS (longest)", int(k), now_ - banks_[k].activated, int64_t(timing_.ras_max));
        const int64_t debt = now_ - debt_from_, most = int64_t(timing_.refresh * (1 + timing_.postponed));
        if (calibrated_ != NEVER && debt > most)
            violation("tREFI", -1, debt, most);
        switch (pins.command) {
        case MODE: mode(pins.bank, pins.address); break;
        case CALIBRATE:
            if (!(pins.address >> 10 & 1))
                wrong("a short calibration", -1);
            calibrated_ = debt_from_ = now_;
            break;
        case REFRESH: refresh(); break;
        case PRECHARGE:
            for (unsigned k = 0; k < BANKS; k++)
                if (pins.address >> 10 & 1 || k == pins.bank)
                    close(k);
            break;
        case ACTIVATE: activate(pins.bank, pins.address & ((1u << timing_.row_bits) - 1)); break;
        case READ: read(pins.bank, pins.address); break;
        case WRITE: write(pins.bank, pins.address); break;
        default: break;
        }
        const bool writing = !writes_.empty() && writes_.front().clock <= clock_;
        driving = !reads_.empty() && reads_.front().clock <= clock_;
        if (pins.driven && driving)
            wrong("both ends drive the data lines", -1);
        if (pins.driven != writing)
            wrong(writing ? "no data where a WRITE wants them" : "data that no WRITE wants", -1);
        if (writing) {
            const int64_t at = 2 * (clock_ - writes_.front().clock);
            for (int beat = 0; beat < 2; beat++) {
                uint16_t &word = writes_.front().words[at + beat];
                const uint16_t keep = uint16_t((pins.mask[beat] & 1 ? 0x00FF : 0) | (pins.mask[beat] & 2 ? 0xFF00 : 0));
                word = uint16_t((word & keep) | (pins.data[beat] & ~keep));
            }
            if (at == 2 * BURST - 2)
                writes_.pop_front();
        }
        if (driving) {
            const int64_t at = 2 * (clock_ - reads_.front().clock);
            for (int beat = 0; beat < 2; beat++)
                data[beat] = reads_.front().words[at + beat];
            if (at == 2 * BURST - 2)
                reads_.pop_front();
        }
        clock_++;
        counts.clocks++;
    }
};

// What the cells at the pins do to the bursts of hw/memory/ddr3/dfi.py, ideally aligned: two clocks of the chip a cycle.
class Ddr3Cells {
  public:
    struct Commands {
        bool reset_n = true, cke = true;
        unsigned command[2] = {Ddr3::NOP, Ddr3::NOP}, bank[2] = {0, 0}, address[2] = {0, 0}; // row's, column's
        uint32_t data[4] = {0, 0, 0, 0};                                                    // with a WRITE
        uint16_t mask = 0;
        unsigned delay = 0, slip = 0; // of byte k, bits 3 k and 2 k up
        bool clear = false;
    };

  private:
    static constexpr int LATENCY = 10; // cycles from the last beat of a burst, as hw/memory/ddr3/phy.py has it
    struct Sent {
        int64_t clock;
        Commands commands;
    };
    struct Got {
        int64_t cycle;
        uint32_t data[4];
    };
    Ddr3 &chip_;
    int64_t cycle_ = 0;
    std::deque<Sent> sent_;
    std::deque<Got> got_;
    uint16_t beats_[8];
    unsigned count_ = 0, delay_[2], slip_[2]; // the least delay of four that serve, and the slip that does
    uint32_t noise_ = 1;
    bool always_ = false; // whatever the setting

    // Whether the bursts of a byte come right with the present settings.
    bool level(unsigned byte, const Commands &commands) const {
        const unsigned delay = commands.delay >> 3 * byte & 7, slip = commands.slip >> 2 * byte & 3;
        return always_ || (slip == slip_[byte] && delay >= delay_[byte] && delay < delay_[byte] + 4);
    }

  public:
    bool valid = false; // of the burst that is given in the present cycle
    uint32_t data[4] = {0, 0, 0, 0};
    uint8_t seen = 0; // bit k: a burst was detected in byte k

    // Cells that give right bursts at some settings of each byte, which a number chooses.
    Ddr3Cells(Ddr3 &chip, unsigned seed)
        : chip_(chip), delay_{seed % 5, seed / 5 % 5}, slip_{seed / 25 % 4, seed / 100 % 4} {}

    // Cells that need no levelling.
    explicit Ddr3Cells(Ddr3 &chip) : chip_(chip), delay_{}, slip_{}, always_(true) {}

    // The commands of the present cycle; `valid` and `data` then belong to the next one.
    void step(const Commands &commands) {
        if (commands.clear)
            seen = 0;
        for (int half = 0; half < 2; half++) {
            const int64_t clock = 2 * cycle_ + half;
            Ddr3::Pins pins;
            pins.reset_n = commands.reset_n;
            pins.cke = commands.cke;
            pins.command = commands.command[half];
            pins.bank = commands.bank[half];
            pins.address = commands.address[half];
            if (pins.command == Ddr3::WRITE)
                sent_.push_back({clock + Ddr3::CAS_WRITE, commands});
            if (!sent_.empty() && sent_.front().clock <= clock) {
                const int64_t beat = 2 * (clock - sent_.front().clock);
                const Commands &from = sent_.front().commands;
                pins.driven = true;
                for (int k = 0; k < 2; k++) {
                    pins.data[k] = uint16_t(from.data[(beat + k) / 2] >> 16 * ((beat + k) % 2));
                    pins.mask[k] = uint8_t(from.mask >> 2 * (beat + k) & 3);
                }
                if (beat == 2 * Ddr3::BURST - 2)
                    sent_.pop_front();
            }
            chip_.step(pins);
            if (chip_.driving) {
                beats_[count_++] = chip_.data[0];
                beats_[count_++] = chip_.data[1];
                if (count_ == 8) {
                    for (unsigned byte = 0; byte < 2; byte++) {
                        if (level(byte, commands)) {
                            seen = uint8_t(seen | 1u << byte);
                            continue;
                        }
                        for (uint16_t &beat : beats_) {
                            noise_ = noise_ * 1664525u + 1013904223u;
                            beat = uint16_t((beat & (byte ? 0x00FF : 0xFF00)) | (noise_ >> 24) << 8 * byte);
                        }
                    }
                    Got got{cycle_ + LATENCY, {}};
                    std::memcpy(got.data, beats_, sizeof got.data);
                    got_.push_back(got);
                    count_ = 0;
                }
            }
        }
        cycle_++;
        valid = !got_.empty() && got_.front().cycle <= cycle_;
        if (valid) {
            std::memcpy(data, got_.front().data, sizeof data);
            got_.pop_front();
        }
    }
};

// The commands of a Verilator model that has the members of Ddr3Dfi as ports, in the present cycle.
template <class Model> Ddr3Cells::Commands commands_of(const Model &model) {
    Ddr3Cells::Commands commands;
    commands.reset_n = model.reset_n;
    commands.cke = model.cke;
    commands.command[0] = model.row_command;
    commands.command[1] = model.column_command;
    commands.bank[0] = model.row_bank;
    commands.bank[1] = model.column_bank;
    commands.address[0] = model.row_address;
    commands.address[1] = model.column_address;
    for (int k = 0; k < 4; k++)
        commands.data[k] = model.write_data[k];
    commands.mask = model.write_mask;
    if constexpr (requires { model.slip; }) {
        commands.delay = model.delay;
        commands.slip = model.slip;
        commands.clear = model.clear;
    }
    return commands;
}
