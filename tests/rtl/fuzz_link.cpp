// Throws frames at the link, good and bad, and compares every reply, every write and every counter with a model.
// Arguments: frames, seed. Ends with 1 and a line on standard error at the first difference.

#include "Vlink.h"
#include "verilated.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

using Bytes = std::vector<uint8_t>;

namespace {

constexpr uint32_t MEMORY_BYTES = 1 << 16;
constexpr uint32_t REGISTERS = 0x90000000, REGISTER_BYTES = 256;
constexpr unsigned QUIET_CYCLES = 600;      // nothing moves for so long: the link is at rest
constexpr unsigned HANG_CYCLES = 2'000'000; // the longest HASH with the slowest memory takes a tenth of it

enum Kind : uint8_t { READ = 1, WRITE = 2, HASH = 4, DATA = 0x81, ACK = 0x82, NAK = 0x83, SUM = 0x84, TOKEN = 0x90 };

uint64_t random_state;

uint64_t random64() {
    random_state += 0x9e3779b97f4a7c15;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint32_t below(uint32_t bound) { return uint32_t(random64() % bound); }
bool chance(double p) { return double(random64() >> 11) * 0x1p-53 < p; }

uint32_t crc32c(const Bytes &bytes) {
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t k = 0; k < 256; k++) {
            uint32_t value = k;
            for (int bit = 0; bit < 8; bit++)
                value = value >> 1 ^ (value & 1 ? 0x82F63B78 : 0);
            table[k] = value;
        }
    uint32_t state = 0xFFFFFFFF;
    for (uint8_t byte : bytes)
        state = state >> 8 ^ table[(state ^ byte) & 255];
    return ~state;
}

void put32(Bytes &bytes, uint32_t value) {
    for (int k = 0; k < 4; k++)
        bytes.push_back(uint8_t(value >> 8 * k));
}

uint32_t get32(const uint8_t *bytes) { return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | uint32_t(bytes[3]) << 24; }

Bytes encode(const Bytes &frame) {
    Bytes out{0};
    size_t code = 0;
    for (uint8_t byte : frame) {
        if (out.size() - code == 255) {
            out[code] = 255;
            code = out.size();
            out.push_back(0);
        }
        if (byte) {
            out.push_back(byte);
        } else {
            out[code] = uint8_t(out.size() - code);
            code = out.size();
            out.push_back(0);
        }
    }
    out[code] = uint8_t(out.size() - code);
    out.push_back(0);
    return out;
}

// The frame in COBS bytes without delimiter and with its checksum taken off; false if it is not a good one.
bool decode(const Bytes &code, Bytes &frame) {
    frame.clear();
    for (size_t at = 0; at < code.size();) {
        size_t end = at + code[at];
        if (end > code.size())
            return false;
        if (at)
            frame.push_back(0);
        frame.insert(frame.end(), code.begin() + long(at) + 1, code.begin() + long(end));
        if (code[at] == 255)
            return false; // 254 bytes: longer than any frame
        at = end;
    }
    if (frame.size() < 11 || frame.size() > 240)
        return false;
    uint32_t sum = get32(&frame[frame.size() - 4]);
    frame.resize(frame.size() - 4);
    return crc32c(frame) == sum;
}

Bytes with_sum(Bytes frame) {
    put32(frame, crc32c(frame));
    return frame;
}

Bytes request(uint8_t kind, uint8_t sequence, uint32_t address, uint8_t length, unsigned data_bytes) {
    Bytes frame{kind, sequence};
    put32(frame, address);
    frame.push_back(length);
    bool zeros = chance(0.3);
    for (unsigned k = 0; k < data_bytes; k++)
        frame.push_back(zeros ? 0 : uint8_t(random64()));
    return frame;
}

// What answers the link's requests, and its twin that only the model changes.
struct Memory {
    std::vector<uint32_t> words = std::vector<uint32_t>(MEMORY_BYTES / 4), registers = std::vector<uint32_t>(REGISTER_BYTES / 4);

    uint32_t *at(uint32_t address) {
        if (address < MEMORY_BYTES)
            return &words[address / 4];
        if (address >= REGISTERS && address < REGISTERS + REGISTER_BYTES)
            return &registers[(address - REGISTERS) / 4];
        return nullptr;
    }
};

struct Write {
    uint32_t address, data;
    bool operator==(const Write &) const = default;
};

Memory device_memory, model_memory;
std::vector<Write> device_writes, model_writes;

// The reply to a frame whose checksum is right.
Bytes execute(const Bytes &frame) {
    auto reply = [&](uint8_t kind, uint8_t length, const Bytes &data) {
        Bytes out(frame.begin(), frame.begin() + 7);
        out[0] = kind;
        out[6] = length;
        out.insert(out.end(), data.begin(), data.end());
        return out;
    };
    auto refuse = [&](uint8_t reason) { return reply(NAK, 4, {reason, 0, 0, 0}); };
    uint8_t kind = frame[0], n = frame[6];
    uint32_t address = get32(&frame[2]);
    if (kind != READ && kind != WRITE && kind != HASH)
        return refuse(1);
    if (address % 4)
        return refuse(2);
    if (n % 4 || n < 4 || n > 224 || frame.size() != 7u + (kind == WRITE ? n : 0))
        return refuse(1);
    Bytes data;
    for (uint32_t k = 0; k < (kind == HASH ? 64u * n : n); k += 4) {
        uint32_t *word = model_memory.at(address + k);
        // A word that is refused is offered to the memory like any other.
        if (kind == WRITE)
            model_writes.push_back({address + k, get32(&frame[7 + k])});
        if (!word)
            return refuse(2);
        if (kind == WRITE)
            *word = get32(&frame[7 + k]);
        put32(data, *word);
    }
    if (kind == WRITE)
        return reply(ACK, n, {});
    if (kind == READ)
        return reply(DATA, n, data);
    Bytes sum;
    put32(sum, crc32c(data));
    return reply(SUM, 4, sum);
}

class Bench {
    std::unique_ptr<VerilatedContext> context_ = std::make_unique<VerilatedContext>();
    std::unique_ptr<Vlink> top_;
    std::deque<uint8_t> line_;
    std::deque<std::pair<uint64_t, uint64_t>> answers_; // cycle from which an answer is given, and the answer
    Bytes part_;

  public:
    uint64_t cycle = 0, moved = 0;
    double gap = 0, stall = 0, slow = 0; // chances per cycle: no byte comes, none is taken, a request waits
    unsigned latency = 1;
    std::deque<uint64_t> events;
    std::vector<uint64_t> events_seen;
    std::vector<Bytes> replies;

    explicit Bench(uint64_t seed) {
        context_->randReset(2);
        context_->randSeed(int(seed % 0x7fffffff) + 1);
        top_ = std::make_unique<Vlink>(context_.get(), "link");
        top_->rst = 1;
        for (int k = 0; k < 4; k++)
            step();
        top_->rst = 0;
    }

    uint32_t bad() const { return uint32_t(top_->frames_bad); }
    uint32_t lost() const { return uint32_t(top_->frames_lost); }
    void send(const Bytes &bytes) { line_.insert(line_.end(), bytes.begin(), bytes.end()); }
    bool sending() const { return !line_.empty(); }

    [[noreturn]] void fail(const std::string &text) const {
        std::fprintf(stderr, "%s (cycle %llu)\n", text.c_str(), (unsigned long long)cycle);
        std::exit(1);
    }

    void step() {
        Vlink &t = *top_;
        if (!t.rx___05Fvalid && !line_.empty() && !t.rst && !chance(gap)) {
            t.rx___05Fvalid = 1;
            t.rx___05Fpayload = line_.front();
            line_.pop_front();
        }
        t.tx___05Fready = !chance(stall);
        t.request___05Fready = answers_.empty() && !chance(slow);
        bool answer = !answers_.empty() && answers_.front().first <= cycle;
        t.response___05Fvalid = answer;
        if (answer)
            t.response___05Fpayload = answers_.front().second;
        t.event___05Fvalid = !events.empty();
        if (!events.empty()) {
            t.event___05Fpayload[0] = uint32_t(events.front());
            t.event___05Fpayload[1] = uint32_t(events.front() >> 32);
            t.event___05Fpayload[2] = 0;  // the slot
        }
        t.clk = 0;
        t.eval();
        if (!t.rst)
            sample();
        t.clk = 1;
        t.eval();
        if (taken_)
            t.rx___05Fvalid = 0;
        taken_ = false;
        cycle++;
    }

    void sample() {
        Vlink &t = *top_;
        if (t.rx___05Fvalid) {
            if (!t.rx___05Fready)
                fail("a byte was not accepted");
            moved = cycle;
            taken_ = true;
        }
        if (t.request___05Fvalid && t.request___05Fready) {
            const uint32_t *payload = t.request___05Fpayload.data();
            bool write = payload[0] & 1;
            uint32_t address = payload[0] >> 1 | payload[1] << 31, data = payload[1] >> 5 | payload[2] << 27;
            if (address % 4)
                fail("a request at an odd address");
            if (payload[1] >> 1 & 15)
                fail("a request beyond 4 GiB");
            uint32_t *word = device_memory.at(address);
            if (write) {
                device_writes.push_back({address, data});
                if (word)
                    *word = data;
            }
            uint64_t value = word ? *word : uint64_t(1) << 32 | uint32_t(random64());
            answers_.push_back({cycle + 1 + below(latency + 1), value});
            moved = cycle;
        }
        if (t.response___05Fvalid && t.response___05Fready)
            answers_.pop_front();
        if (t.event___05Fvalid && t.event___05Fready)
            events.pop_front();
        if (t.tx___05Fvalid && t.tx___05Fready) {
            moved = cycle;
            if (t.tx___05Fpayload) {
                part_.push_back(t.tx___05Fpayload);
                return;
            }
            Bytes frame;
            if (!decode(part_, frame))
                fail("a damaged frame came from the device");
            part_.clear();
            if (frame[0] == TOKEN)
                events_seen.push_back(get32(&frame[2]) | uint64_t(get32(&frame[7])) << 32);
            else
                replies.push_back(frame);
        }
    }

    void settle() {
        uint64_t from = cycle;
        moved = cycle;
        while (!line_.empty() || !answers_.empty() || !events.empty() || cycle - moved < QUIET_CYCLES) {
            step();
            if (cycle - from > HANG_CYCLES)
                fail("the link does not come to rest");
        }
    }

  private:
    bool taken_ = false;
};

uint8_t sequence = 0;

uint32_t random_address(bool good) {
    if (good)
        return chance(0.9) ? 4 * below(MEMORY_BYTES / 4 - 56) : REGISTERS + 4 * below(8);
    const uint32_t edges[] = {0, MEMORY_BYTES, REGISTERS + REGISTER_BYTES, REGISTERS, 0x80000000, 0xFFFFFFFC, 0xA0000000};
    switch (below(3)) {
    case 0: return uint32_t(random64());
    case 1: return edges[below(7)] - 4 * below(60);
    default: return below(MEMORY_BYTES);
    }
}

Bytes good_request() {
    uint8_t n = uint8_t(4 * (1 + (chance(0.5) ? below(56) : below(4))));
    if (chance(0.03))
        return request(HASH, sequence++, 4 * below(MEMORY_BYTES / 4 - 256), uint8_t(4 * (1 + below(4))), 0);
    bool write = chance(0.6);
    return request(write ? WRITE : READ, sequence++, random_address(true), n, write ? n : 0);
}

// Bytes for the line: one frame, or something that was to be one.
Bytes piece() {
    Bytes out;
    switch (below(10)) {
    case 0: // noise
        for (uint32_t n = 1 + below(chance(0.1) ? 600 : 60); n; n--)
            out.push_back(chance(0.02) ? 0 : uint8_t(random64()));
        break;
    case 1: // one byte for all
        out.assign(1 + below(chance(0.1) ? 700 : 40), chance(0.5) ? uint8_t(random64()) : uint8_t(255));
        break;
    case 2: // right checksum, wrong fields
        out = encode(with_sum(request(chance(0.7) ? uint8_t(1 << below(3)) : uint8_t(random64()), sequence++,
                                      random_address(chance(0.5)), uint8_t(random64()), below(chance(0.5) ? 230 : 9))));
        break;
    case 3: { // right checksum, any address
        uint8_t kind = uint8_t(1 + below(2)), n = uint8_t(4 * (1 + below(56)));
        out = encode(with_sum(request(kind, sequence++, random_address(false), n, kind == WRITE ? n : 0)));
        break;
    }
    case 4: { // right checksum, any length
        Bytes body;
        for (uint32_t n = below(260); n; n--)
            body.push_back(uint8_t(random64()));
        out = encode(with_sum(body));
        break;
    }
    case 5: case 6: case 7: { // a good request that was damaged on the way
        out = encode(with_sum(good_request()));
        for (uint32_t k = 1 + below(3); k && !out.empty(); k--) {
            size_t at = below(uint32_t(out.size()));
            switch (below(7)) {
            case 0: out[at] ^= uint8_t(1 << below(8)); break;
            case 1: out.erase(out.begin() + long(at)); break;
            case 2: out.insert(out.begin() + long(at), out[at]); break;
            case 3: out.resize(at); break;
            case 4: out[at] = 0; break;
            case 5: out.insert(out.begin() + long(at), uint8_t(random64())); break;
            default: // a burst
                for (size_t j = at; j < out.size() && j < at + 8; j++)
                    out[j] = uint8_t(random64());
            }
        }
        break;
    }
    default: out = encode(with_sum(good_request()));
    }
    if (chance(0.9))
        out.push_back(0); // else it runs into the next one
    return out;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    const uint64_t wanted = std::strtoull(argv[1], nullptr, 0), seed = std::strtoull(argv[2], nullptr, 0);
    random_state = seed;
    Bench bench(seed);
    uint64_t frames = 0, good = 0, executed = 0, naks = 0, batches = 0, writes = 0;
    uint32_t bad_before = 0, lost_before = 0;
    while (frames < wanted) {
        bench.gap = chance(0.5) ? 0 : 0.3;
        bench.stall = chance(0.7) ? 0 : 0.5;
        bench.slow = chance(0.7) ? 0 : 0.4;
        bench.latency = chance(0.8) ? 2 : 30;
        Bytes line;
        for (uint32_t n = 1 + below(40); n; n--) {
            Bytes next = piece();
            line.insert(line.end(), next.begin(), next.end());
        }
        line.push_back(0);
        std::deque<Bytes> valid; // frames that the device may execute, in order
        uint64_t pieces = 0, broken = 0;
        Bytes code, frame;
        for (uint8_t byte : line) {
            if (byte) {
                code.push_back(byte);
                continue;
            }
            if (code.empty())
                continue;
            pieces++;
            if (decode(code, frame))
                valid.push_back(frame);
            else
                broken++;
            code.clear();
        }
        std::vector<uint64_t> events;
        if (chance(0.3))
            for (uint32_t k = 1 + below(6); k; k--)
                events.push_back(random64() & (chance(0.5) ? ~uint64_t(0) : 0xFF000000FF));
        bench.events.assign(events.begin(), events.end());
        bench.replies.clear();
        bench.events_seen.clear();
        device_writes.clear();
        model_writes.clear();
        // One frame at a time nothing may be lost; all at once some find no buffer.
        bool flood = chance(0.5);
        if (flood) {
            bench.send(line);
        } else {
            Bytes one;
            for (uint8_t byte : line) {
                one.push_back(byte);
                if (byte)
                    continue;
                bench.send(one);
                size_t had = bench.replies.size();
                bool reply = one.size() > 1 && decode(Bytes(one.begin(), one.end() - 1), frame);
                for (uint64_t from = bench.cycle; bench.sending() || (reply && bench.replies.size() == had);) {
                    bench.step();
                    if (bench.cycle - from > HANG_CYCLES)
                        bench.fail("a good frame was not answered");
                }
                one.clear();
            }
        }
        bench.settle();
        if (bench.events_seen != events)
            bench.fail("TOKEN frames differ from the events");
        uint32_t bad = bench.bad() - bad_before, lost = bench.lost() - lost_before;
        bad_before += bad;
        lost_before += lost;
        if (bench.replies.size() + bad + lost != pieces)
            bench.fail("frames answered, bad and lost are not all frames: " + std::to_string(bench.replies.size()) + " + " +
                       std::to_string(bad) + " + " + std::to_string(lost) + " of " + std::to_string(pieces));
        if (!flood && (lost || bad != broken))
            bench.fail("frames sent one by one: " + std::to_string(lost) + " lost, " + std::to_string(bad) + " bad of " +
                       std::to_string(broken));
        // Replies come in the order of the frames; those between two answered ones were lost.
        for (const Bytes &reply : bench.replies) {
            while (!valid.empty() && !std::equal(reply.begin() + 1, reply.begin() + 6, valid.front().begin() + 1))
                valid.pop_front();
            if (valid.empty())
                bench.fail("a reply to no valid frame");
            if (execute(valid.front()) != reply)
                bench.fail("a wrong reply");
            naks += reply[0] == NAK;
            valid.pop_front();
        }
        if (device_writes != model_writes)
            bench.fail("writes differ from those of the frames that were answered");
        // The link lives: a valid READ is answered.
        Bytes probe = request(READ, sequence++, 4 * below(1000), 64, 0);
        bench.replies.clear();
        bench.send(encode(with_sum(probe)));
        bench.settle();
        if (bench.replies.size() != 1 || bench.replies[0] != execute(probe))
            bench.fail("a valid READ is not answered");
        frames += pieces + 1;
        good += pieces - broken + 1;
        executed += pieces - bad - lost + 1;
        writes += device_writes.size();
        batches++;
    }
    if (device_memory.words != model_memory.words || device_memory.registers != model_memory.registers)
        bench.fail("the memory differs");
    std::printf("frames %llu good %llu executed %llu refused %llu bad %u lost %u writes %llu batches %llu cycles %llu\n",
                (unsigned long long)frames, (unsigned long long)good, (unsigned long long)executed, (unsigned long long)naks,
                bad_before, lost_before, (unsigned long long)writes, (unsigned long long)batches,
                (unsigned long long)bench.cycle);
    return 0;
}
