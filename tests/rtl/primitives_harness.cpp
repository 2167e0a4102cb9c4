// Units beside their netlists, the same random inputs for both. Arguments: SEED CYCLES. Prints the number of every
// pair whose outputs have differed, with the cycle of the first difference.

#include "Vpairs.h"
#include "verilated.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

static bool bit(const uint32_t *words, size_t k) { return words[k / 32] >> k % 32 & 1; }

int main(int, char **argv) {
    const unsigned long seed = std::strtoul(argv[1], nullptr, 0), cycles = std::strtoul(argv[2], nullptr, 0);
    auto context = std::make_unique<VerilatedContext>();
    context->randReset(2);
    context->randSeed(int(seed % 0x7fffffff) + 1);
    auto top = std::make_unique<Vpairs>(context.get(), "pairs");
    std::mt19937 random(seed);
    std::vector<bool> seen(8 * sizeof top->wrong);
    auto look = [&](unsigned long cycle) {
        top->eval();
        for (size_t k = 0; k < seen.size(); k++)
            if (!seen[k] && bit(reinterpret_cast<const uint32_t *>(&top->wrong), k)) {
                seen[k] = true;
                std::printf("%zu %lu\n", k, cycle);
            }
    };
    top->clk = 0;
    for (unsigned long cycle = 0; cycle < cycles; cycle++) {
        look(cycle); // before any edge: what configuration leaves
        for (int word = 0; word < 3; word++)
            top->r[word] = random();
        if (random() % 8) // resets and the like are rarer
            top->r[0] &= ~0x48u;
        look(cycle);
        top->clk = 1;
        look(cycle);
        top->clk = 0;
    }
    top->final();
    return 0;
}
