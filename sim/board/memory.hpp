// Model of the external memory: bursts of words in order, byte-masked writes, latency, bandwidth and refresh.
#pragma once

#include "status.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <sys/mman.h>

struct MemoryTiming {
    uint64_t latency_cycles = 20;    // from a command to its first word
    uint64_t bandwidth = 256;        // words per 256 cycles, reads and writes together
    uint64_t refresh_interval = 780; // cycles between the beginnings of two refreshes; 0: never
    uint64_t refresh_cycles = 0;     // cycles of a refresh, in which nothing is transferred
    uint64_t pauses = 0;             // of 256 cycles, drawn at random: in these nothing is transferred either
};

// Whose memory it is: word w of engine k stands at word w K + k of the content.
struct Share {
    unsigned engines = 1, engine = 0;
};

// The bytes of the memory.
class Content {
    uint64_t bytes_;
    uint8_t *pages_;

  public:
    explicit Content(uint64_t bytes) : bytes_(bytes) {
        // Anonymous pages: a large memory costs only what is touched.
        void *pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED)
            fail(USAGE, "not enough memory for the model memory");
        pages_ = static_cast<uint8_t *>(pages);
    }

    uint8_t *at(uint64_t address) const { return pages_ + address; }

    void randomize(uint64_t seed) {
        std::mt19937_64 generator(seed);
        for (uint64_t at = 0; at + 8 <= bytes_; at += 8) {
            uint64_t value = generator();
            std::memcpy(pages_ + at, &value, 8);
        }
    }

    // Copies `bytes` at `offset` of a file to `address`; false if the file is too short or the memory too small. Behind
    // `ports` AXI ports the bytes go where these have them (hw/memory/axi/layout.py).
    bool preload(const char *file, uint64_t offset, uint64_t bytes, uint64_t address, unsigned ports = 0,
                 uint64_t port_bytes = 0, uint64_t block_bytes = 0) {
        if (address > bytes_ || bytes > bytes_ - address)
            return false;
        std::FILE *handle = std::fopen(file, "rb");
        if (!handle)
            return false;
        bool good = fseeko(handle, off_t(offset), SEEK_SET) == 0;
        if (!ports) {
            good = good && std::fread(pages_ + address, 1, bytes, handle) == bytes;
            bytes = 0;
        }
        const uint64_t beat = ports ? port_bytes / ports : 0;
        while (good && bytes) {
            const uint64_t part = std::min(bytes, beat - address % beat);
            const uint64_t word = address / port_bytes, port = address % port_bytes / beat;
            const uint64_t beats = block_bytes / beat; // of a block
            const uint64_t at = (word / beats * ports + port) * block_bytes + word % beats * beat + address % beat;
            good = std::fread(pages_ + at, 1, part, handle) == part;
            address += part;
            bytes -= part;
        }
        std::fclose(handle);
        return good;
    }
};

class Memory {
    struct Burst {
        uint64_t address, left, due;
    };
    static constexpr unsigned DEPTH = 8; // bursts that may be outstanding
    uint64_t words_;
    unsigned word_bytes_;
    uint8_t *content_;
    MemoryTiming timing_;
    Burst queue_[DEPTH];
    unsigned first_ = 0, count_ = 0;
    uint64_t cycle_ = 0, credit_ = 0, refresh_left_ = 0, refresh_next_;
    bool write_waits_ = false;
    Share share_;
    std::mt19937_64 pauses_;

    uint8_t *at(uint64_t address) const { return content_ + (address * share_.engines + share_.engine) * word_bytes_; }

    void check(const char *what, uint64_t address, uint64_t length) {
        if (length == 0 || length > 32 || address + length > words_ || address + length < address) {
            char text[160];
            std::snprintf(text, sizeof text, "%s of %llu words at word %#llx: use 1..32 words below %#llx (cycle %llu)", what,
                          (unsigned long long)length, (unsigned long long)address, (unsigned long long)words_,
                          (unsigned long long)cycle_);
            fail(BAD_ACCESS, text);
        }
    }

  public:
    // What the memory drives in the present cycle.
    bool command_ready = true, data_valid = false, write_ready = true, refreshing = false;
    const uint8_t *data = nullptr;

    // `bytes`: of the memories of all engines.
    Memory(const Content &content, uint64_t bytes, unsigned word_bytes, const MemoryTiming &timing, uint64_t seed = 0,
           const Share &share = {})
        : words_(bytes / word_bytes / share.engines), word_bytes_(word_bytes), content_(content.at(0)), timing_(timing),
          refresh_next_(timing.refresh_interval), share_(share), pauses_(seed * 64 + share.engine) {
        data = content_;
    }

    bool quiet() const { return count_ == 0 && !data_valid && !write_waits_; }

    // A command was accepted in the present cycle.
    void command(uint64_t address, uint64_t length) {
        check("read", address, length);
        queue_[(first_ + count_) % DEPTH] = {address, length, cycle_ + timing_.latency_cycles};
        count_++;
    }

    // A write was accepted in the present cycle; bit k of the mask enables byte k.
    void write(uint64_t address, const uint8_t *word, const uint8_t *mask) {
        check("write", address, 1);
        for (unsigned k = 0; k < count_; k++) {
            const Burst &burst = queue_[(first_ + k) % DEPTH];
            // Which value such a read returns depends on the memory controller, so no design may rely on it.
            if (address >= burst.address && address < burst.address + burst.left) {
                char text[120];
                std::snprintf(text, sizeof text, "write to word %#llx while a read of it is outstanding (cycle %llu)",
                              (unsigned long long)address, (unsigned long long)cycle_);
                fail(BAD_ACCESS, text);
            }
        }
        uint8_t *target = at(address);
        for (unsigned k = 0; k < word_bytes_; k++)
            if (mask[k / 8] >> (k % 8) & 1)
                target[k] = word[k];
        credit_ -= 256; // write_ready was given only with credit for it
    }

    // Decides what is driven in the next cycle. `write_waits`: a write was offered and not accepted.
    void step(bool write_waits) {
        cycle_++;
        write_waits_ = write_waits;
        if (timing_.refresh_interval && cycle_ == refresh_next_) {
            refresh_next_ += timing_.refresh_interval;
            refresh_left_ = timing_.refresh_cycles;
        }
        refreshing = refresh_left_ > 0;
        command_ready = count_ < DEPTH;
        data_valid = write_ready = false;
        if (refreshing) {
            refresh_left_--;
            return;
        }
        if (timing_.pauses && pauses_() % 256 < timing_.pauses)
            return;
        credit_ += timing_.bandwidth;
        if (credit_ > 512)
            credit_ = 512;
        // A waiting write goes first, otherwise a stream of reads would keep it out for ever.
        bool read_due = count_ && queue_[first_].due <= cycle_ && credit_ >= (write_waits ? 512u : 256u);
        if (read_due) {
            Burst &burst = queue_[first_];
            data = at(burst.address);
            data_valid = true;
            credit_ -= 256;
            burst.address++;
            if (--burst.left == 0) {
                first_ = (first_ + 1) % DEPTH;
                count_--;
            }
        }
        write_ready = credit_ >= 256;
    }
};
