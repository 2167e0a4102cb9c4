// Counts by how many bits every signal changes, out of the waveform that Verilator would write to a file.
#pragma once

#include "status.hpp"
#include "verilated_vcd_c.h"

#include <cstdint>
#include <cstdio>
#include <string>
#include <unordered_map>
#include <vector>

class ToggleCounter final : public VerilatedVcdFile {
    struct Signal {
        std::string path, value;
        unsigned width = 1;
        uint64_t toggles = 0;
    };
    std::string part_, scope_;
    std::vector<size_t> scopes_;                    // lengths of scope_ outside
    std::unordered_map<std::string, Signal> signals_; // by code; names of the same signal share one
    bool defined_ = false;

    void define(const std::string &line) {
        char kind[16], name[512], code[64];
        unsigned width = 0;
        if (std::sscanf(line.c_str(), " $scope %15s %511s", kind, name) == 2) {
            scopes_.push_back(scope_.size());
            scope_ += (scope_.empty() ? "" : ".") + std::string(name);
        } else if (line.find("$upscope") != std::string::npos) {
            scope_.resize(scopes_.back());
            scopes_.pop_back();
        } else if (std::sscanf(line.c_str(), " $var %15s %u %63s %511s", kind, &width, code, name) == 4) {
            Signal &signal = signals_[code];
            signal.path = scope_ + "." + name; // of several the innermost, which comes last
            signal.width = width;
        } else if (line.find("$enddefinitions") != std::string::npos) {
            defined_ = true;
        }
    }

    void change(const std::string &line) {
        size_t space = line[0] == 'b' ? line.find(' ') : 0;
        if (space == std::string::npos || (line[0] != 'b' && line[0] != '0' && line[0] != '1'))
            return; // a time
        const size_t begin = line[0] == 'b' ? 1 : 0, size = line[0] == 'b' ? space - 1 : 1;
        auto found = signals_.find(line.substr(begin + size + (line[0] == 'b')));
        if (found == signals_.end())
            return;
        Signal &signal = found->second;
        if (signal.value.size() == size)
            for (size_t k = 0; k < size; k++)
                signal.toggles += signal.value[k] != line[begin + k];
        signal.value.assign(line, begin, size);
    }

  public:
    bool open(const std::string &) override { return true; }
    void close() override {}
    ssize_t write(const char *text, ssize_t size) override {
        for (const char *end = text + size; text < end;) {
            const char *newline = static_cast<const char *>(std::memchr(text, '\n', size_t(end - text)));
            part_.append(text, newline ? newline : end);
            if (!newline)
                break;
            if (!part_.empty()) {
                if (defined_)
                    change(part_);
                else
                    define(part_);
            }
            part_.clear();
            text = newline + 1;
        }
        return size;
    }

    // A line per signal: its bits that changed, its width, its path.
    void save(const char *path) const {
        std::FILE *file = std::fopen(path, "w");
        if (!file)
            fail(USAGE, ("--toggles " + std::string(path) + ": cannot be written").c_str());
        for (const auto &entry : signals_)
            std::fprintf(file, "%llu %u %s\n", (unsigned long long)entry.second.toggles, entry.second.width, entry.second.path.c_str());
        std::fclose(file);
    }
};
