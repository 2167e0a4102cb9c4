// Model of a DRAM and its controller behind AXI4 ports: banks, rows, refresh, the turn of the data lines, and a path between
// ports and controller that takes time. What a master does against the protocol, or against the order of its reads and
// writes, ends the run with a line that names it. sim/board/dram.py has the settings and says what they stand for.
#pragma once

#include "memory.hpp"
#include "status.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

struct DramTiming { // picoseconds, in the order of sim/board/dram.py
    uint64_t transfer = 4000; // of 64 bytes on the data lines
    uint64_t rcd = 0, rp = 0, rrd = 0, ras = 0, cas = 0, rfc = 0, refi = 0, write_recovery = 0;
    uint64_t turn = 0; // from reads to writes, and back
    uint64_t path = 0; // from a port to the controller, and from there back
    uint64_t depth = 16; // bursts that a port takes before it has answered the first of them
    uint64_t wrong_burst = 0; // number of the read burst, from 1, that is answered with SLVERR; 0: none
    uint64_t wrong_write = 0; // likewise of the write burst
};

// Of numbers with commas between them, as sim/board/dram.py writes them; those that are left out are as above.
inline DramTiming dram_timing(const char *text) {
    DramTiming t;
    uint64_t *fields[] = {&t.transfer, &t.rcd, &t.rp, &t.rrd, &t.ras, &t.cas, &t.rfc, &t.refi, &t.write_recovery, &t.turn,
                          &t.path, &t.depth, &t.wrong_burst, &t.wrong_write};
    const char *at = text;
    for (uint64_t *field : fields) {
        char *end = nullptr;
        *field = std::strtoull(at, &end, 10);
        if (end == at || (*end && *end != ','))
            break;
        if (!*end)
            return t;
        at = end + 1;
    }
    fail(USAGE, (std::string("--dram ") + text + ": use numbers with commas between them, not too many").c_str());
}

// What a master drives in the present cycle.
struct AxiPins {
    bool arvalid, awvalid, wvalid, wlast, rready, bready;
    uint64_t araddr, awaddr;
    unsigned arid, arlen, arsize, arburst, awid, awlen, awsize, awburst;
    const uint8_t *wdata, *wstrb;
};

// What the memory drives in the present cycle.
struct AxiAnswer {
    bool arready = false, rvalid = false, rlast = false, awready = false, wready = false, bvalid = false;
    unsigned rid = 0, rresp = 0, bid = 0, bresp = 0;
    const uint8_t *rdata = nullptr;
};

class Dram {
    static constexpr uint64_t CHUNK = 64, PAIR_BYTES = 16384; // of the data lines; of a row in both banks of a pair
    static constexpr unsigned PAIRS = 4;                      // two bank groups of four banks: chunks alternate between groups
    static constexpr uint64_t DRAIN = 32, OLD = 2000000;      // writes go when there are so many chunks, or one is so old
    static constexpr uint64_t NONE = ~uint64_t(0);

    struct Read {
        uint64_t address, bytes, arrived, number;
        unsigned id, beats, given, chunks, asked; // asked: chunks that the controller has read
        std::vector<uint64_t> due;                // of each chunk at the port
    };
    struct Write {
        uint64_t address, bytes, arrived, number;
        unsigned id, port, chunks;
        std::vector<uint8_t> data, mask;
    };
    struct Pair {
        uint64_t row = NONE, ready = 0, opened = 0, written = 0; // opened: the ACTIVATE, or the end of a refresh
    };
    struct Answer { // of a write
        uint64_t due;
        unsigned id, resp;
    };
    struct Port {
        AxiPins before{};
        bool ar_held = false, aw_held = false, w_held = false;
        std::vector<uint8_t> held_data;
        std::deque<Read> reads;
        unsigned first = 0;         // of reads: the first with chunks that are not asked for
        std::deque<Write> begun;    // addresses whose beats have not all come
        std::deque<Answer> answers;
        unsigned unanswered = 0;    // bursts between AW and B
    };

    const DramTiming t_;
    const uint64_t clock_, bytes_;
    const unsigned beat_;
    uint8_t *content_;
    std::vector<Port> ports_;
    std::deque<Write> writes_;
    std::vector<Write> unanswered_; // all writes whose response is not taken, for the order of reads
    Pair pairs_[PAIRS];
    uint64_t cycle_ = 0, column_ = 0, refresh_, waiting_chunks_ = 0, bursts_ = 0, write_bursts_ = 0;
    unsigned turn_of_ = 0;
    bool writing_ = false, settled_ = false; // settled: the rows of all reads that have arrived are open

    [[noreturn]] void wrong(unsigned port, const std::string &what) const {
        fail(BAD_ACCESS, ("AXI port " + std::to_string(port) + ": " + what + " (cycle " + std::to_string(cycle_) + ")").c_str());
    }

    void check_burst(unsigned port, const char *what, uint64_t address, unsigned len, unsigned size, unsigned burst) const {
        const uint64_t bytes = uint64_t(len + 1) << size;
        if (burst != 1)
            wrong(port, std::string(what) + "BURST is not INCR");
        if ((1u << size) != beat_)
            wrong(port, std::string(what) + "SIZE is not that of the data lines");
        if (address % beat_)
            wrong(port, std::string(what) + "ADDR is not that of a beat");
        if (address / 4096 != (address + bytes - 1) / 4096)
            wrong(port, std::string(what) + ": a burst over a boundary of 4 KB");
        if (address + bytes > bytes_)
            wrong(port, std::string(what) + ": a burst beyond the memory");
    }

    static bool meets(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) {
        return a < b + b_bytes && b < a + a_bytes;
    }

    // What VALID offers stays until READY.
    void check_held(unsigned k, const AxiPins &pins) {
        Port &p = ports_[k];
        const AxiPins &b = p.before;
        if (p.ar_held && !(pins.arvalid && pins.araddr == b.araddr && pins.arlen == b.arlen && pins.arid == b.arid))
            wrong(k, "AR changed before ARREADY");
        if (p.aw_held && !(pins.awvalid && pins.awaddr == b.awaddr && pins.awlen == b.awlen && pins.awid == b.awid))
            wrong(k, "AW changed before AWREADY");
        if (p.w_held && !(pins.wvalid && pins.wlast == b.wlast && !std::memcmp(pins.wdata, p.held_data.data(), beat_)))
            wrong(k, "W changed before WREADY");
        const AxiAnswer &a = answers[k];
        p.ar_held = pins.arvalid && !a.arready;
        p.aw_held = pins.awvalid && !a.awready;
        p.w_held = pins.wvalid && !a.wready;
        if (p.w_held)
            p.held_data.assign(pins.wdata, pins.wdata + beat_);
        p.before = pins;
    }

    void take_read(unsigned k, const AxiPins &pins) {
        check_burst(k, "AR", pins.araddr, pins.arlen, pins.arsize, pins.arburst);
        const uint64_t bytes = uint64_t(pins.arlen + 1) * beat_;
        for (const Write &w : unanswered_)
            if (meets(pins.araddr, bytes, w.address, w.bytes))
                wrong(k, "a read of what a write without response goes to");
        for (const Read &r : ports_[k].reads)
            if (r.id == pins.arid)
                counts.same_id++;
        Read r{pins.araddr, bytes, now() + t_.path, ++bursts_, pins.arid, pins.arlen + 1, 0,
               unsigned((pins.araddr % CHUNK + bytes + CHUNK - 1) / CHUNK), 0, {}};
        r.due.reserve(r.chunks);
        ports_[k].reads.push_back(std::move(r));
        settled_ = false;
    }

    void take_write(unsigned k, const AxiPins &pins) {
        check_burst(k, "AW", pins.awaddr, pins.awlen, pins.awsize, pins.awburst);
        const uint64_t bytes = uint64_t(pins.awlen + 1) * beat_;
        for (const Port &p : ports_)
            for (const Read &r : p.reads)
                if (meets(pins.awaddr, bytes, r.address, r.bytes))
                    wrong(k, "a write to what is being read");
        const unsigned chunks = unsigned((pins.awaddr % CHUNK + bytes + CHUNK - 1) / CHUNK);
        Write w{pins.awaddr, bytes, 0, ++write_bursts_, pins.awid, k, chunks, {}, {}};
        unanswered_.push_back(w);
        ports_[k].begun.push_back(std::move(w));
        ports_[k].unanswered++;
    }

    void take_beat(unsigned k, const AxiPins &pins) {
        Port &p = ports_[k];
        Write &w = p.begun.front();
        w.data.insert(w.data.end(), pins.wdata, pins.wdata + beat_);
        for (unsigned j = 0; j < beat_; j++)
            w.mask.push_back(pins.wstrb[j / 8] >> (j % 8) & 1);
        if (pins.wlast != (w.data.size() == w.bytes))
            wrong(k, "WLAST is not with the last beat");
        if (!pins.wlast)
            return;
        w.arrived = now() + t_.path;
        waiting_chunks_ += w.chunks;
        writes_.push_back(std::move(w));
        p.begun.pop_front();
    }

    uint64_t now() const { return cycle_ * clock_; }
    static unsigned resp_of(uint64_t number, uint64_t wrong) { return number == wrong ? 2 : 0; } // SLVERR, OKAY
    static uint64_t row_of(uint64_t address) { return address / PAIR_BYTES; }
    Pair &pair_of(uint64_t row) { return pairs_[row % PAIRS]; }

    // Opens a row, both banks of a pair; the times of its commands are those at which they may come.
    void open(uint64_t row, uint64_t at) {
        Pair &p = pair_of(row);
        uint64_t act = std::max(at, p.opened); // of a closed row: when the refresh before has ended
        if (p.row != NONE)
            act = std::max({at, p.opened + t_.ras, p.written + t_.write_recovery}) + t_.rp;
        p.row = row;
        p.opened = act;
        p.ready = act + t_.rrd + t_.rcd;
        counts.activates += 2;
    }

    // Opens the rows of reads ahead, each if no older read wants the row that it takes the place of.
    void open_ahead() {
        if (settled_)
            return;
        settled_ = true;
        for (Port &p : ports_)
            for (size_t k = p.first; k < p.reads.size(); k++) {
                const Read &r = p.reads[k];
                const uint64_t row = row_of(r.address);
                const Pair &pair = pair_of(row);
                if (pair.row == row)
                    continue;
                if (r.arrived > now()) {
                    settled_ = false;
                    break;
                }
                // Nor that of the write that goes next.
                bool wanted = writing_ && !writes_.empty() && &pair_of(row_of(writes_.front().address)) == &pair;
                for (const Port &q : ports_)
                    for (size_t j = q.first; j < q.reads.size() && !wanted; j++)
                        wanted = q.reads[j].number < r.number && row_of(q.reads[j].address) == pair.row;
                if (!wanted)
                    open(row, now());
                settled_ = false;
                break; // rows behind this one come next
            }
    }

    bool read_chunk() {
        uint64_t best = NONE;
        unsigned chosen = 0;
        for (unsigned n = 0; n < ports_.size(); n++) {
            const unsigned k = (turn_of_ + n) % unsigned(ports_.size());
            Port &p = ports_[k];
            if (p.first >= p.reads.size())
                continue;
            const Read &r = p.reads[p.first];
            const Pair &pair = pair_of(row_of(r.address));
            if (pair.row != row_of(r.address))
                continue;
            const uint64_t at = std::max({column_, r.arrived, pair.ready});
            if (at <= now() && at < best) {
                best = at;
                chosen = k;
            }
        }
        if (best == NONE)
            return false;
        Port &p = ports_[chosen];
        Read &r = p.reads[p.first];
        r.due.push_back(best + t_.cas + t_.transfer + t_.path);
        if (++r.asked == r.chunks) {
            p.first++;
            turn_of_ = chosen + 1;
        }
        column_ = best + t_.transfer;
        counts.read_chunks++;
        return true;
    }

    bool write_burst() {
        Write &w = writes_.front();
        Pair &pair = pair_of(row_of(w.address));
        if (pair.row != row_of(w.address)) {
            open(row_of(w.address), std::max(column_, now()));
            settled_ = false;
        }
        const uint64_t at = std::max({column_, pair.ready, w.arrived});
        if (at > now())
            return false;
        for (uint64_t j = 0; j < w.bytes; j++)
            if (w.mask[j])
                content_[w.address + j] = w.data[j];
        column_ = at + w.chunks * t_.transfer;
        pair.written = column_ + t_.cas;
        waiting_chunks_ -= w.chunks;
        counts.write_chunks += w.chunks;
        ports_[w.port].answers.push_back({column_ + t_.path, w.id, resp_of(w.number, t_.wrong_write)});
        writes_.pop_front();
        return true;
    }

    void schedule() {
        if (t_.refi && now() >= refresh_) {
            column_ = std::max(column_, now()) + t_.rp + t_.rfc;
            for (Pair &p : pairs_) {
                p.row = NONE;
                p.opened = column_;
            }
            refresh_ += t_.refi;
            settled_ = false;
            counts.refreshes++;
        }
        if (column_ > now())
            return; // rows are opened in the same breath as columns are read: what is ahead comes below
        bool reads = false;
        for (const Port &p : ports_)
            reads = reads || p.first < p.reads.size();
        const bool due = !writes_.empty() && writes_.front().arrived <= now();
        if (!writing_ && due && (waiting_chunks_ >= DRAIN || !reads || now() - writes_.front().arrived > OLD)) {
            writing_ = true;
            column_ = std::max(column_, now()) + t_.turn;
            counts.turns++;
        }
        while (column_ <= now()) {
            if (writing_ && !due) {
                writing_ = false;
                column_ += t_.turn;
                continue;
            }
            if (writing_) {
                if (!write_burst())
                    return;
                if (writes_.empty() || writes_.front().arrived > now()) {
                    writing_ = false;
                    column_ += t_.turn;
                }
            } else if (!read_chunk()) {
                return;
            }
        }
    }

  public:
    struct Counts {
        uint64_t read_chunks = 0, write_chunks = 0, activates = 0, refreshes = 0, turns = 0, same_id = 0;
    } counts;
    std::vector<AxiAnswer> answers; // of each port, in the present cycle

    Dram(const DramTiming &timing, uint64_t clock_ps, const Content &content, uint64_t bytes, unsigned ports, unsigned beat_bytes)
        : t_(timing), clock_(clock_ps), bytes_(bytes), beat_(beat_bytes), content_(content.at(0)), ports_(ports),
          refresh_(timing.refi), answers(ports) {}

    bool quiet() const {
        for (const Port &p : ports_)
            if (!p.reads.empty() || p.unanswered || p.ar_held || p.aw_held || p.w_held)
                return false;
        return true;
    }

    // Takes what the masters drive in the present cycle, then decides what is driven in the next one.
    void step(const std::vector<AxiPins> &pins) {
        for (unsigned k = 0; k < ports_.size(); k++) {
            Port &p = ports_[k];
            const AxiAnswer &a = answers[k];
            check_held(k, pins[k]);
            if (pins[k].wvalid && p.begun.empty() && !pins[k].awvalid)
                wrong(k, "a beat to write before its address");
            if (a.rvalid && pins[k].rready) {
                Read &r = p.reads.front();
                if (++r.given == r.beats) {
                    p.reads.pop_front();
                    p.first--;
                }
            }
            if (a.bvalid && pins[k].bready) {
                const auto done = std::find_if(unanswered_.begin(), unanswered_.end(), [&](const Write &w) { return w.port == k; });
                unanswered_.erase(done); // those of one port are answered in order
                p.answers.pop_front();
                p.unanswered--;
            }
            if (pins[k].awvalid && a.awready)
                take_write(k, pins[k]);
            if (pins[k].wvalid && a.wready)
                take_beat(k, pins[k]);
            if (pins[k].arvalid && a.arready)
                take_read(k, pins[k]);
        }
        cycle_++;
        schedule();
        open_ahead();
        for (unsigned k = 0; k < ports_.size(); k++) {
            Port &p = ports_[k];
            AxiAnswer &a = answers[k];
            a.arready = p.reads.size() < t_.depth;
            a.awready = p.unanswered < t_.depth;
            a.wready = !p.begun.empty(); // addresses first
            a.rvalid = a.bvalid = false;
            if (!p.reads.empty()) {
                const Read &r = p.reads.front();
                const uint64_t chunk = (r.address % CHUNK + uint64_t(r.given) * beat_) / CHUNK;
                if (chunk < r.asked && r.due[chunk] <= now()) {
                    a.rvalid = true;
                    a.rid = r.id;
                    a.rlast = r.given + 1 == r.beats;
                    a.rdata = content_ + r.address + uint64_t(r.given) * beat_;
                    a.rresp = resp_of(r.number, t_.wrong_burst);
                }
            }
            if (!p.answers.empty() && p.answers.front().due <= now()) {
                a.bvalid = true;
                a.bid = p.answers.front().id;
                a.bresp = p.answers.front().resp;
            }
        }
    }
};
