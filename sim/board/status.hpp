// How the harness ends.
#pragma once

#include <cstdio>

// Exit statuses of the harness; sim/board/board.py explains them.
enum Status { OK = 0, USAGE = 2, BAD_ACCESS = 3, CYCLE_LIMIT = 4, UNWRITTEN = 5 };

// Ends the run with a message; thrown, so that waveforms and traces are still written.
[[noreturn]] inline void fail(Status status, const char *text) {
    std::fprintf(stderr, "simulated board: %s\n", text);
    throw status;
}
