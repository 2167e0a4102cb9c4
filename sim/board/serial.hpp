// A serial line bit by bit, in the cycles of the board's clock, and the USB bridge at its other end.
#pragma once

#include "link.hpp"

#include <cstdint>
#include <cstdio>
#include <deque>
#include <random>

struct SerialTiming {
    double error = 0;            // of the bridge's clock: 0.02 is 2 % faster than the board's
    double noise = 0;            // share of the bits that are inverted on the line
    uint64_t latency_us = 1000;  // of the bridge's latency timer
    uint64_t frame_us = 125;     // from one USB transfer to the next
    uint64_t packet_bytes = 510; // bytes to the host that are worth a packet at once
};

class SerialBridge {
    static constexpr size_t BUFFER_BYTES = 4096;
    Link &link_;
    double bit_, frame_, latency_, noise_;
    size_t packet_;
    std::mt19937_64 generator_;
    std::FILE *log_ = nullptr;
    // To the device: bytes in the bridge, and levels of the byte on the line, the next in bit 0.
    std::deque<uint8_t> out_;
    unsigned levels_ = 1, left_ = 0;
    uint8_t sending_ = 0;
    bool level_ = true;
    double edge_ = 0;
    // From the device: the byte on the line, and bytes in the bridge.
    std::deque<uint8_t> in_;
    unsigned bits_ = 0, value_ = 0;
    bool receiving_ = false, last_ = true;
    double middle_ = 0;
    double next_frame_ = 0, timer_ = 0;
    uint64_t missing_stops_ = 0;

    bool hit() { return noise_ > 0 && double(generator_() >> 11) * 0x1p-53 < noise_; }

    void record(uint64_t cycle, bool to_device, uint8_t byte) {
        if (!log_)
            return;
        uint8_t entry[10];
        for (int k = 0; k < 8; k++)
            entry[k] = uint8_t(cycle >> 8 * k);
        entry[8] = to_device;
        entry[9] = byte;
        std::fwrite(entry, 1, sizeof entry, log_);
    }

    // What happens once per USB frame.
    void frame(double now) {
        while (link_.has_byte() && out_.size() < BUFFER_BYTES) {
            out_.push_back(link_.byte());
            link_.take();
        }
        bool late = now >= timer_;
        while (in_.size() >= packet_ || (late && !in_.empty())) {
            for (size_t k = 0; k < packet_ && !in_.empty(); k++) {
                link_.put(in_.front());
                in_.pop_front();
            }
            timer_ = now + latency_;
        }
        if (late)
            timer_ = now + latency_;
    }

  public:
    SerialBridge(Link &link, const SerialTiming &timing, double bit_cycles, double cycles_per_us, uint64_t seed)
        : link_(link), bit_(bit_cycles / (1 + timing.error)), frame_(double(timing.frame_us) * cycles_per_us),
          latency_(double(timing.latency_us) * cycles_per_us), noise_(timing.noise), packet_(timing.packet_bytes),
          generator_(seed) {}

    ~SerialBridge() {
        if (log_)
            std::fclose(log_);
        if (missing_stops_)
            std::fprintf(stderr, "simulated board: %llu bytes without stop bit on the line to the host\n",
                         (unsigned long long)missing_stops_);
    }

    bool open_log(const char *path) { return (log_ = std::fopen(path, "wb")) != nullptr; }

    // Nothing will happen on the line or in the bridge until a byte comes from either side.
    bool quiet() const { return !link_.has_byte() && out_.empty() && !left_ && !receiving_ && in_.empty(); }

    // Level of the line to the device in a cycle; called for every cycle in turn.
    bool level(uint64_t cycle) {
        double now = double(cycle);
        if (now >= next_frame_) {
            // After a time without clock the frames go on from here.
            next_frame_ = now - next_frame_ > frame_ ? now + frame_ : next_frame_ + frame_;
            frame(now);
        }
        if (now < edge_)
            return level_;
        if (!left_) {
            if (out_.empty())
                return level_ = true;
            sending_ = out_.front();
            out_.pop_front();
            levels_ = unsigned(sending_) << 1 | 1u << 9;
            left_ = 10;
            if (now - edge_ > 1)
                edge_ = now; // after a pause; otherwise the byte follows the one before it without a gap
        }
        level_ = (levels_ & 1) ^ hit();
        levels_ >>= 1;
        edge_ += bit_;
        if (--left_ == 0)
            record(cycle, true, sending_);
        return level_;
    }

    // Takes the level of the line from the device in a cycle.
    void sample(uint64_t cycle, bool level) {
        double now = double(cycle);
        if (!receiving_) {
            if (last_ && !level) {
                receiving_ = true;
                bits_ = value_ = 0;
                middle_ = now + 0.5 * bit_;
            }
        } else if (now >= middle_) {
            value_ |= unsigned(level ^ hit()) << bits_;
            middle_ += bit_;
            if (++bits_ == 10) {
                receiving_ = false;
                uint8_t byte = uint8_t(value_ >> 1);
                record(cycle, false, byte);
                if (!(value_ & 1) && value_ >> 9 && in_.size() < BUFFER_BYTES)
                    in_.push_back(byte);
                else
                    missing_stops_++;
            }
        }
        last_ = level;
    }
};
