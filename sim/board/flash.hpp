// Model of a serial flash, the W25Q128JV of Winbond (data sheet revision F), as far as a board starts from it: asleep until
// it is woken, READ in mode 0. What the data sheet forbids ends the run.
#pragma once

#include "status.hpp"

#include <cstdint>
#include <cstdio>
#include <vector>

class Flash {
    static constexpr size_t BYTES = 16 << 20;
    static constexpr double WAKE_NS = 3000, DESELECT_NS = 50, READ_NS = 20; // tRES1, tSHSL, 1 / fR
    static constexpr uint8_t WAKE = 0xAB, READ = 0x03;
    std::vector<uint8_t> content_ = std::vector<uint8_t>(BYTES, 0xFF);
    double cycle_ns_;
    bool selected_ = false, clock_ = false, asleep_ = true, output_ = true;
    double awake_ = 0, deselected_ = -1e9, rise_ = -1e9; // ns
    uint64_t bits_ = 0;                                 // since the selection
    uint32_t word_ = 0;                                 // the last ones that came
    uint8_t command_ = 0;
    size_t address_ = 0;

    [[noreturn]] void wrong(const char *what, double now) {
        char text[120];
        std::snprintf(text, sizeof text, "flash: %s (%.0f ns)", what, now);
        fail(BAD_ACCESS, text);
    }

    void rising(bool bit, double now) {
        if (command_ == READ && bits_ > 8 && now - rise_ < READ_NS - 0.01)
            wrong("READ at more than 50 MHz", now);
        rise_ = now;
        word_ = word_ << 1 | bit;
        bits_++;
        if (bits_ == 8) {
            command_ = uint8_t(word_);
            if (command_ != WAKE && command_ != READ)
                wrong("a command that the model does not know", now);
            if (command_ != WAKE && asleep_)
                wrong("a command before 0xAB has woken it", now);
            if (command_ != WAKE && now < awake_)
                wrong("a command within tRES1 of 0xAB", now);
        }
        if (bits_ == 32)
            address_ = word_ & (BYTES - 1);
    }

    void falling() {
        if (command_ != READ || bits_ < 32)
            return;
        unsigned k = unsigned(bits_ - 32);
        output_ = content_[(address_ + k / 8) % BYTES] >> (7 - k % 8) & 1;
    }

  public:
    uint64_t bytes_read = 0;

    explicit Flash(double clock_hz) : cycle_ns_(1e9 / clock_hz) {}

    // Puts a file at an offset; false if it cannot be read or is too long.
    bool load(const char *file, size_t offset) {
        std::FILE *handle = std::fopen(file, "rb");
        if (!handle)
            return false;
        size_t got = offset < BYTES ? std::fread(content_.data() + offset, 1, BYTES - offset, handle) : 0;
        bool whole = std::fgetc(handle) == EOF && !std::ferror(handle);
        std::fclose(handle);
        return whole && offset + got <= BYTES;
    }

    // Takes the pins of a cycle; the level at the data output from then on.
    bool step(uint64_t cycle, bool select_n, bool clock, bool to_flash) {
        double now = double(cycle) * cycle_ns_;
        if (selected_ && select_n) {
            if (command_ == WAKE && bits_ >= 8 && asleep_) {
                asleep_ = false;
                awake_ = now + WAKE_NS;
            }
            if (command_ == READ && bits_ >= 32)
                bytes_read += (bits_ - 32) / 8;
            deselected_ = now;
            output_ = true; // a pull-up
        } else if (!selected_ && !select_n) {
            if (now - deselected_ < DESELECT_NS)
                wrong("selected again within tSHSL", now);
            if (clock || clock_)
                wrong("selected with the clock high: this is not mode 0", now);
            bits_ = 0;
            command_ = 0;
        }
        selected_ = !select_n;
        if (selected_ && clock && !clock_)
            rising(to_flash, now);
        else if (selected_ && !clock && clock_)
            falling();
        clock_ = clock;
        return output_;
    }
};
