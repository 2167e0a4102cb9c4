// The waveforms of a run: a VCD or an FST file that may pause, ends at its limit, and says so when a disk is full.
#pragma once

#include "status.hpp"
#include "verilated.h"
#if BOARD_WAVES == 2
#include "verilated_fst_c.h"
#else
#include "toggles.hpp"
#include "verilated_vcd_c.h"
#endif

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

// Says why a file cannot be written any more, at once: the parent looks for it while the model still runs.
inline void say_unwritten(const std::string &path, int error) {
    std::fprintf(stderr, "simulated board: %s: %s: the waveforms end there\n", path.c_str(), std::strerror(error));
    std::fflush(stderr);
}

#if BOARD_WAVES == 2

// Blocks of some cycles; the length is looked at behind each of them.
class Waves {
    static constexpr unsigned BLOCK_DUMPS = 4096; // two per cycle; megabytes of memory for a large model
    std::unique_ptr<VerilatedFstC> file_ = std::make_unique<VerilatedFstC>();
    std::string path_;
    uint64_t limit_ = 0, size_ = 0;
    unsigned dumps_ = 0;
    static inline std::string closing_;
    static inline int errors_ = -1;

    // The writer aborts when it cannot close its file.
    static void unclosed(int) {
        dup2(errors_, 2);
        say_unwritten(closing_, ENOSPC);
        _exit(UNWRITTEN);
    }

    // The writer keeps its errors to itself: a file that does not grow any more shows them.
    void look() {
        struct stat now {};
        if (stat(path_.c_str(), &now))
            return fail_with(errno);
        if (uint64_t(now.st_size) <= size_) {
            int probe = ::open(path_.c_str(), O_WRONLY | O_APPEND);
            char zeros[4096] = {};
            bool written = probe >= 0 && ::write(probe, zeros, sizeof zeros) == ssize_t(sizeof zeros);
            return fail_with(written ? EIO : errno);
        }
        size_ = uint64_t(now.st_size);
        if (limit_ && size_ >= limit_)
            close();
    }

    void fail_with(int error) {
        failed = true;
        say_unwritten(path_, error ? error : EIO);
        (void)file_.release(); // never closed
    }

  public:
    bool on = true, failed = false;

    template <class Model> void open(Model &top, const std::string &path, uint64_t limit) {
        path_ = path;
        limit_ = limit;
        top.trace(file_.get(), 99);
        if (!path.empty()) {
            std::FILE *there = std::fopen(path.c_str(), "wb");
            if (!there)
                fail(USAGE, ("--waves " + path + ": " + std::strerror(errno)).c_str());
            std::fclose(there);
            file_->open(path.c_str());
        }
    }

    void dump(uint64_t time) {
        if (!on || !file_ || !file_->isOpen())
            return;
        file_->dump(time);
        if (++dumps_ == BLOCK_DUMPS)
            file_->flush(); // which happens with the next change of time
        if (dumps_ == BLOCK_DUMPS + 2) {
            dumps_ = 0;
            look();
        }
    }

    void close() {
        if (!file_ || !file_->isOpen())
            return;
        closing_ = path_;
        errors_ = dup(2);
        int nothing = ::open("/dev/null", O_WRONLY);
        dup2(nothing, 2); // what the writer says before it aborts
        auto before = std::signal(SIGABRT, unclosed);
        file_->close();
        std::signal(SIGABRT, before);
        dup2(errors_, 2);
        ::close(errors_);
        ::close(nothing);
    }
};

#else

// Ends behind the first line at its limit.
class VcdFile final : public VerilatedVcdFile {
    int file_ = -1;
    std::string path_;
    uint64_t size_ = 0;

  public:
    uint64_t limit = 0;
    bool full = false, failed = false;

    bool open(const std::string &path) override {
        path_ = path;
        file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        return file_ >= 0;
    }

    void close() override {
        if (file_ >= 0 && ::close(file_) && !failed) {
            failed = true; // some file systems find out only now
            say_unwritten(path_, errno);
        }
        file_ = -1;
    }

    // Takes everything, whatever becomes of it: an error here would end the simulation without a word of the way out.
    ssize_t write(const char *text, ssize_t size) override {
        if (full || failed)
            return size;
        size_t wanted = size_t(size);
        if (limit && size_ + wanted >= limit) {
            const size_t from = size_ >= limit ? 0 : size_t(limit - size_) - 1;
            const void *newline = std::memchr(text + from, '\n', wanted - from);
            if (newline) {
                wanted = size_t(static_cast<const char *>(newline) - text) + 1;
                full = true;
            }
        }
        for (size_t done = 0; done < wanted;) {
            ssize_t got = ::write(file_, text + done, wanted - done);
            if (got < 0 && (errno == EINTR || errno == EAGAIN))
                continue;
            if (got <= 0) {
                failed = true;
                say_unwritten(path_, errno);
                break;
            }
            done += size_t(got);
        }
        size_ += wanted;
        return size;
    }
};

class Waves {
    VcdFile file_;
    ToggleCounter toggles_;
    std::unique_ptr<VerilatedVcdC> writer_;
    bool counting_ = false;

  public:
    bool on = true, failed = false;

    template <class Model>
    void open(Model &top, const std::string &path, uint64_t limit, bool count_toggles = false) {
        counting_ = count_toggles;
        file_.limit = limit;
        writer_ = std::make_unique<VerilatedVcdC>(counting_ ? static_cast<VerilatedVcdFile *>(&toggles_) : &file_);
        if (path.empty() && !counting_)
            return;
        top.trace(writer_.get(), 99);
        writer_->open(path.c_str());
        if (!writer_->isOpen())
            fail(USAGE, ("--waves " + path + ": " + std::strerror(errno)).c_str());
    }

    void dump(uint64_t time) {
        if (on && !file_.full && !file_.failed && writer_->isOpen())
            writer_->dump(time);
    }

    void close() {
        writer_->close();
        failed = file_.failed;
    }

    void save_toggles(const char *path) const { toggles_.save(path); }
};

#endif
