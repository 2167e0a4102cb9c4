// What Verilator's FST writer takes of LZ4, so that no library has to be there: blocks as its format says, made by
// looking for the last place where four bytes stood.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

// A run of literals, and a match behind it if `match` is not 0; returns where the next one goes.
inline uint8_t *lz4_sequence(uint8_t *out, const uint8_t *literals, size_t count, size_t offset, size_t match) {
    auto more = [&out](size_t left) {
        for (; left >= 255; left -= 255)
            *out++ = 255;
        *out++ = uint8_t(left);
    };
    const size_t extra = match ? match - 4 : 0;
    *out++ = uint8_t((count < 15 ? count : 15) << 4 | (extra < 15 ? extra : 15));
    if (count >= 15)
        more(count - 15);
    std::memcpy(out, literals, count);
    out += count;
    if (match) {
        *out++ = uint8_t(offset);
        *out++ = uint8_t(offset >> 8);
        if (extra >= 15)
            more(extra - 15);
    }
    return out;
}

// Returns the bytes of the block; `target` has LZ4_compressBound(size) of them.
inline int LZ4_compress_default(const char *source, char *target, int size, int) {
    static constexpr size_t LAST_LITERALS = 5, LAST_MATCH = 12, FARTHEST = 65535; // of the format
    static constexpr unsigned HASH_BITS = 13;
    const auto *in = reinterpret_cast<const uint8_t *>(source);
    auto *out = reinterpret_cast<uint8_t *>(target);
    const size_t end = size_t(size);
    uint32_t seen[1 << HASH_BITS] = {}; // place + 1 by the hash of four bytes
    size_t at = 0, done = 0;
    while (at + LAST_MATCH < end) {
        uint32_t word;
        std::memcpy(&word, in + at, 4);
        uint32_t &slot = seen[word * 2654435761u >> (32 - HASH_BITS)];
        const size_t place = slot;
        slot = uint32_t(at) + 1;
        if (!place || at - (place - 1) > FARTHEST || std::memcmp(in + place - 1, in + at, 4)) {
            at++;
            continue;
        }
        const size_t begin = place - 1;
        size_t match = 4;
        while (at + match < end - LAST_LITERALS && in[begin + match] == in[at + match])
            match++;
        out = lz4_sequence(out, in + done, at - done, at - begin, match);
        at += match;
        done = at;
    }
    out = lz4_sequence(out, in + done, end - done, 0, 0);
    return int(out - reinterpret_cast<uint8_t *>(target));
}
