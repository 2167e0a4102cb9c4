// The simulated board: clocks the Verilator model of the accelerator, with a memory and a byte link around it.
// The model holds its inputs in registers (verilog.py): what is set before a rising edge are the inputs of the cycle
// after it, and the outputs read after the edge belong to the same cycle. So each cycle is evaluated once. The chip of
// an SDRAM has its registers at the pins instead, and perhaps a clock of its own, at a phase that the seed chooses.

#include "Vboard.h"
#include "board_config.h"
#if BOARD_AXI_PORTS
#include "dram.hpp"
#endif
#include "flash.hpp"
#include "link.hpp"
#include "memory.hpp"
#include "ports.hpp"
#if BOARD_SDRAM
#include "sdram.hpp"
#endif
#if BOARD_DDR3
#include "ddr3.hpp"
#endif
#include "serial.hpp"
#include "verilated.h"

#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>
#if BOARD_WAVES
#include "waves.hpp"
#endif

static constexpr uint64_t RESET_CYCLES = 4;
static volatile std::sig_atomic_t stopped = 0;

namespace {

struct Preload {
    uint64_t address, offset, bytes;
    std::string file;
};

struct Options {
    int port = 0;
    uint64_t seed = 0, max_cycles = 0, waves_limit = 0;
    bool watch_stdin = false, waves_off = false;
    MemoryTiming timing;
    std::vector<Preload> preloads;
    std::string waves, toggles, trace, line_log, flash;
    std::vector<uint8_t> greeting, wait;
    SerialTiming line;
#if BOARD_AXI_PORTS
    DramTiming dram;
#endif
};

uint64_t number(const char *text, const char *name) {
    char *end = nullptr;
    errno = 0;
    uint64_t value = std::strtoull(text, &end, 0);
    if (errno || end == text || *end)
        fail(USAGE, (std::string(name) + " " + text + ": use a number").c_str());
    return value;
}

Preload preload(const std::string &text) {
    Preload result{};
    uint64_t *fields[] = {&result.address, &result.offset, &result.bytes};
    size_t at = 0;
    for (uint64_t *field : fields) {
        size_t colon = text.find(':', at);
        if (colon == std::string::npos)
            fail(USAGE, ("--preload " + text + ": use ADDRESS:OFFSET:BYTES:FILE").c_str());
        *field = number(text.substr(at, colon - at).c_str(), "--preload");
        at = colon + 1;
    }
    result.file = text.substr(at);
    return result;
}

std::vector<uint8_t> hex_bytes(const std::string &text) {
    std::vector<uint8_t> bytes;
    for (size_t k = 0; k + 1 < text.size(); k += 2)
        bytes.push_back(uint8_t(std::stoul(text.substr(k, 2), nullptr, 16)));
    return bytes;
}

Options parse(int argc, char **argv) {
    Options o;
    for (int k = 1; k < argc; k++) {
        std::string name = argv[k];
        if (name == "--watch-stdin") {
            o.watch_stdin = true;
            continue;
        }
        if (name == "--waves-off") {
            o.waves_off = true;
            continue;
        }
        if (k + 1 >= argc)
            fail(USAGE, (name + ": unknown option, or its value is missing").c_str());
        const char *value = argv[++k];
        if (name == "--port") o.port = int(number(value, "--port"));
        else if (name == "--seed") o.seed = number(value, "--seed");
        else if (name == "--max-cycles") o.max_cycles = number(value, "--max-cycles");
        else if (name == "--latency") o.timing.latency_cycles = number(value, "--latency");
        else if (name == "--bandwidth") o.timing.bandwidth = number(value, "--bandwidth");
        else if (name == "--refresh-interval") o.timing.refresh_interval = number(value, "--refresh-interval");
        else if (name == "--refresh-cycles") o.timing.refresh_cycles = number(value, "--refresh-cycles");
        else if (name == "--pauses") o.timing.pauses = number(value, "--pauses");
#if BOARD_AXI_PORTS
        else if (name == "--dram") o.dram = dram_timing(value);
#endif
        else if (name == "--preload") o.preloads.push_back(preload(value));
        else if (name == "--waves") o.waves = value;
        else if (name == "--waves-limit") o.waves_limit = number(value, "--waves-limit");
        else if (name == "--toggles") o.toggles = value;
        else if (name == "--trace") o.trace = value;
        else if (name == "--line-error") o.line.error = std::strtod(value, nullptr) * 1e-6;
        else if (name == "--line-noise") o.line.noise = double(number(value, "--line-noise")) * 1e-9;
        else if (name == "--usb-latency") o.line.latency_us = number(value, "--usb-latency");
        else if (name == "--usb-frame") o.line.frame_us = number(value, "--usb-frame");
        else if (name == "--usb-packet") o.line.packet_bytes = number(value, "--usb-packet");
        else if (name == "--line-log") o.line_log = value;
        else if (name == "--flash") o.flash = value;
        else if (name == "--greeting") o.greeting = hex_bytes(value);
        else if (name == "--wait") o.wait = hex_bytes(value);
        else fail(USAGE, (name + ": unknown option").c_str());
    }
    if (o.timing.bandwidth < 1 || o.timing.bandwidth > 256)
        fail(USAGE, "--bandwidth: use 1 to 256 words per 256 cycles");
    if (o.timing.refresh_interval && o.timing.refresh_cycles >= o.timing.refresh_interval)
        fail(USAGE, "--refresh-cycles: must be below --refresh-interval");
    if (!o.trace.empty() && !BOARD_TRACE)
        fail(USAGE, "--trace: a netlist has no trace");
    if ((!o.waves.empty() && !BOARD_WAVES) || (!o.toggles.empty() && BOARD_WAVES != 1))
        fail(USAGE, "--waves: this build cannot record waveforms");
    if (!o.waves.empty() && !o.toggles.empty())
        fail(USAGE, "--toggles: leave --waves out");
    return o;
}

#if BOARD_EXTERNAL
// A memory takes what its port drives in the present cycle; whether nothing is under way there.
bool memory_cycle(Memory &memory, bool reset, bool data_ready, bool write_valid, uint64_t write_address, const uint8_t *write_data,
                  const uint8_t *write_mask, bool command_valid, uint64_t command_address, uint64_t command_length) {
    bool write_waits = false, quiet = true;
    if (!reset) {
        if (memory.data_valid && !data_ready)
            fail(BAD_ACCESS, "the device did not accept a word that it had asked for");
        if (write_valid) {
            if (memory.write_ready)
                memory.write(write_address, write_data, write_mask);
            else
                write_waits = true;
        }
        if (command_valid && memory.command_ready)
            memory.command(command_address, command_length);
        quiet = !command_valid && !write_valid;
    }
    memory.step(write_waits);
    return quiet && memory.quiet();
}
#endif

#if BOARD_SDRAM
struct ChipPins {
    CData cke, cs_n, ras_n, cas_n, we_n, ba, dqm, dq_oe;
    SData a, dq_o;
};
#endif

#if BOARD_AXI_PORTS
constexpr unsigned BEAT_BYTES = BOARD_PORT_BYTES / BOARD_AXI_PORTS;
#endif

#if BOARD_TRACE
void record(std::FILE *file, const Vboard &top, uint64_t cycle) {
    uint8_t flags = uint8_t(top.trace_last | top.trace_is_code << 1);
    std::fwrite(&flags, 1, 1, file);
    std::fwrite(&cycle, 1, sizeof cycle, file);
    std::fwrite(bytes_of(top.trace_values), 1, 3 * BOARD_LANES, file);
    std::fwrite(bytes_of(top.trace_codes), 1, BOARD_LANES, file);
}
#endif

int run(int argc, char **argv) {
    const Options options = parse(argc, argv);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN); // a limit of the size of files is an error of the write
    struct sigaction action {};
    action.sa_handler = [](int) { stopped = 1; }; // without SA_RESTART: poll returns at once
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);

    auto context = std::make_unique<VerilatedContext>();
    context->randReset(2); // every register and memory starts with random bits (verilog.py)
    context->randSeed(int(options.seed % 0x7fffffff) + 1);
    context->traceEverOn(BOARD_WAVES);
    auto top = std::make_unique<Vboard>(context.get(), "board");
#if BOARD_WAVES
    Waves waves;
#if BOARD_WAVES == 1
    waves.open(*top, options.waves, options.waves_limit, !options.toggles.empty());
#else
    waves.open(*top, options.waves, options.waves_limit);
#endif
    waves.on = !options.waves_off;
#endif
#if BOARD_EXTERNAL || BOARD_SDRAM || BOARD_DDR3 || BOARD_AXI_PORTS
    Content content(BOARD_MEMORY_BYTES);
    if (options.seed)
        content.randomize(options.seed);
    for (const Preload &p : options.preloads)
        if (!content.preload(p.file.c_str(), p.offset, p.bytes, p.address, BOARD_AXI_PORTS, BOARD_PORT_BYTES, BOARD_BLOCK_BYTES))
            fail(USAGE, ("--preload " + p.file + ": cannot be read, or is larger than the memory").c_str());
#else
    if (!options.preloads.empty())
        fail(USAGE, "--preload: on-chip memory is written through the link");
#endif
#if BOARD_EXTERNAL
    std::vector<Memory> memories;
    for (unsigned k = 0; k < BOARD_ENGINES; k++)
        memories.emplace_back(content, BOARD_MEMORY_BYTES, BOARD_PORT_BYTES, options.timing, options.seed, Share{BOARD_ENGINES, k});
#endif
#if BOARD_AXI_PORTS
    Dram dram(options.dram, uint64_t(1e12 / BOARD_CLOCK_HZ + 0.5), content, BOARD_MEMORY_BYTES, BOARD_AXI_PORTS, BEAT_BYTES);
    std::vector<AxiPins> pins(BOARD_AXI_PORTS);
#endif
#if BOARD_SDRAM
    static constexpr uint64_t sdram_numbers[SDRAM_NUMBERS] = BOARD_SDRAM_NUMBERS;
    std::vector<Sdram> chips;
    for (unsigned k = 0; k < BOARD_ENGINES; k++)
        chips.emplace_back(sdram_timing(sdram_numbers), content.at(0), Share{BOARD_ENGINES, k}, BOARD_PORT_BYTES / 2);
#endif
#if BOARD_DDR3
    static constexpr uint64_t ddr3_numbers[DDR3_NUMBERS] = BOARD_DDR3_NUMBERS;
    Ddr3 ddr3(ddr3_timing(ddr3_numbers), content.at(0));
    Ddr3Cells cells(ddr3, unsigned(options.seed));
#endif
#if BOARD_FLASH
    Flash flash(BOARD_CLOCK_HZ);
    if (!flash.load(options.flash.c_str(), BOARD_FLASH_OFFSET))
        fail(USAGE, ("--flash " + options.flash + ": cannot be read, or is larger than the flash").c_str());
#else
    if (!options.flash.empty())
        fail(USAGE, "--flash: this board has none");
#endif
    std::FILE *trace = nullptr;
    if (!options.trace.empty() && !(trace = std::fopen(options.trace.c_str(), "wb")))
        fail(USAGE, ("--trace " + options.trace + ": cannot be written").c_str());
    Link link(options.watch_stdin, options.greeting, options.wait);
    int port = link.open(options.port);
    if (port < 0)
        fail(USAGE, ("port " + std::to_string(options.port) + " of 127.0.0.1 cannot be opened: is it in use?").c_str());
    std::printf("listening %d\n", port);
    std::fflush(stdout);

#if BOARD_BAUD
    SerialBridge bridge(link, options.line, double(BOARD_CLOCK_HZ) / BOARD_BAUD, BOARD_CLOCK_HZ / 1e6, options.seed);
    if (!options.line_log.empty() && !bridge.open_log(options.line_log.c_str()))
        fail(USAGE, ("--line-log " + options.line_log + ": cannot be written").c_str());
#endif
    uint64_t cycle = 0;
    unsigned quiet_cycles = 0;
    Status status = OK;
    bool offered = false; // whether a received byte is at the inputs
    auto set_inputs = [&] {
        top->rst = cycle < RESET_CYCLES;
#if BOARD_BAUD
        top->rx_line = bridge.level(cycle);
#else
        offered = link.has_byte() && !top->rst;
        top->rx_valid = offered;
        if (offered)
            top->rx_payload = link.byte();
#endif
#if BOARD_EXTERNAL
#define SET(k, s)                                                                                                              \
    top->command_ready##s = memories[k].command_ready;                                                                         \
    top->data_valid##s = memories[k].data_valid;                                                                               \
    if (memories[k].data_valid)                                                                                                \
        set_bytes(top->data_payload##s, memories[k].data, BOARD_PORT_BYTES);                                                   \
    top->write_ready##s = memories[k].write_ready;                                                                             \
    top->refreshing##s = memories[k].refreshing;
        BOARD_EACH_ENGINE(SET)
#undef SET
#endif
#if BOARD_AXI_PORTS
#define ANSWER(k) AXI_ANSWER((*top), k, dram.answers[k], BEAT_BYTES)
        BOARD_EACH_PORT(ANSWER)
#undef ANSWER
#endif
    };
#if !BOARD_BAUD
    top->tx_ready = 1;
#endif
    // Rises a clock, and lets the other one fall with it unless both edges are of the same clock.
    [[maybe_unused]] uint64_t wave_time = 0;
    auto rise = [&](CData &clock, CData *other) {
        if (clock || !other) {
            clock = 0;
            top->eval();
        }
#if BOARD_WAVES
        waves.dump(wave_time++);
#endif
        clock = 1;
        if (other)
            *other = 0;
        top->eval();
#if BOARD_WAVES
        waves.dump(wave_time++);
#endif
    };
#if BOARD_SDRAM
    auto chip_cycle = [&] {
#define STEP(k, s)                                                                                                             \
    top->dq_i##s = chips[k].driving ? chips[k].data : uint16_t(chips[k].counts.cycles * 0x9E37); /* for the end of this cycle */ \
    chips[k].step(pins_of(ChipPins{top->cke##s, top->cs_n##s, top->ras_n##s, top->cas_n##s, top->we_n##s, top->ba##s,          \
                                   top->dqm##s, top->dq_oe##s, top->a##s, top->dq_o##s}));
        BOARD_EACH_ENGINE(STEP)
#undef STEP
    };
#endif
#if BOARD_DDR3
    auto chip_cycle = [&] { // for the cycle that begins; what the cells give stands in it
        top->read_valid = cells.valid;
        set_bytes(top->read_data, reinterpret_cast<const uint8_t *>(cells.data), sizeof cells.data);
        top->seen = cells.seen;
        top->eval();
        cells.step(commands_of(*top));
    };
#endif
#if BOARD_MEMORY_HZ
    const double memory_period = double(BOARD_CLOCK_HZ) / BOARD_MEMORY_HZ; // in cycles of the main clock
    double memory_edge = memory_period * double(options.seed % 97) / 97;
#endif
    set_inputs();
    while (!stopped && !link.parent_gone) {
#if BOARD_MEMORY_HZ
        for (; memory_edge <= double(cycle); memory_edge += memory_period) {
            top->memory_rst = cycle < RESET_CYCLES;
            rise(top->memory_clk, &top->clk);
            if (cycle >= RESET_CYCLES)
                chip_cycle();
        }
        rise(top->clk, &top->memory_clk);
#else
        rise(top->clk, nullptr);
#endif
        const bool reset = cycle < RESET_CYCLES;
#if BOARD_BAUD
        bool quiet = top->idle && bridge.quiet() && !reset;
        if (!reset)
            bridge.sample(cycle, top->tx_line);
#else
        bool quiet = top->idle && !offered && !top->tx_valid && !reset;
        if (!reset) {
            if (offered && top->rx_ready)
                link.take();
            if (top->tx_valid)
                link.put(uint8_t(top->tx_payload));
        }
#endif
#if BOARD_FLASH
        if (!reset)
            top->from_flash = flash.step(cycle, top->select_n, top->clock, top->to_flash);
#endif
#if BOARD_TRACE
        if (trace && top->trace_valid && !reset)
            record(trace, *top, cycle);
#endif
#if BOARD_EXTERNAL
#define STEP(k, s)                                                                                                             \
    quiet = memory_cycle(memories[k], reset, top->data_ready##s, top->write_valid##s, top->write_address##s,                   \
                         bytes_of(top->write_data##s), bytes_of(top->write_mask##s), top->command_valid##s,                    \
                         top->command_address##s, top->command_length##s) && quiet;
        BOARD_EACH_ENGINE(STEP)
#undef STEP
#endif
#if BOARD_AXI_PORTS
        if (!reset) {
#define PINS(k) AXI_PINS((*top), k),
            pins = {BOARD_EACH_PORT(PINS)};
#undef PINS
            dram.step(pins);
            quiet = quiet && dram.quiet();
        }
#endif
#if BOARD_SDRAM && !BOARD_MEMORY_HZ
        if (!reset)
            chip_cycle();
#endif
        cycle++;
        if (options.max_cycles && cycle >= options.max_cycles) {
            std::fprintf(stderr, "simulated board: stopped after %llu cycles (--max-cycles)\n", (unsigned long long)cycle);
            status = CYCLE_LIMIT;
            break;
        }
        quiet_cycles = quiet ? quiet_cycles + 1 : 0;
        if (quiet_cycles >= 64) {
            // Nothing can happen before a byte arrives, so the clock stops and the process sleeps.
            if (trace)
                std::fflush(trace);
            quiet_cycles = 0;
            link.service(link.has_byte() ? 0 : 500); // a signal just before the wait is seen after it
        } else if (cycle % 256 == 0) {
            link.service(0);
        }
#if BOARD_WAVES
        // What the parent says holds from here on: before any byte that came behind it.
        for (size_t end; (end = link.heard.find('\n')) != std::string::npos; link.heard.erase(0, end + 1)) {
            const std::string order = link.heard.substr(0, end);
            if (order == "waves on" || order == "waves off")
                waves.on = order == "waves on";
        }
#endif
        set_inputs();
    }
    if (link.sending())
        link.service(0);
    if (link.lost_bytes)
        std::fprintf(stderr, "simulated board: %llu bytes lost, the client did not read\n", (unsigned long long)link.lost_bytes);
    if (trace)
        std::fclose(trace);
#if BOARD_WAVES
    waves.close();
#if BOARD_WAVES == 1
    if (!options.toggles.empty())
        waves.save_toggles(options.toggles.c_str());
#endif
    if (waves.failed && status == OK)
        status = UNWRITTEN;
#endif
    top->final();
#if BOARD_AXI_PORTS
    const std::pair<const char *, uint64_t> counted[] = {
        {"read_chunks", dram.counts.read_chunks}, {"write_chunks", dram.counts.write_chunks},
        {"activates", dram.counts.activates}, {"refreshes", dram.counts.refreshes}, {"turns", dram.counts.turns}};
    for (const auto &[name, count] : counted)
        std::printf("count %s %llu\n", name, (unsigned long long)count);
#endif
#if BOARD_SDRAM
    Sdram::Counts counts;
    for (const Sdram &chip : chips) {
        counts.cycles = chip.counts.cycles;
        counts.toggles += chip.counts.toggles;
        for (unsigned k = 0; k < 8; k++)
            counts.commands[k] += chip.counts.commands[k];
    }
    std::printf("chip %llu\n", (unsigned long long)counts.cycles);
    static const char *const names[] = {"load_mode", "refresh", "precharge", "activate", "write", "read"};
    for (unsigned k = 0; k < sizeof names / sizeof *names; k++)
        std::printf("count %s %llu\n", names[k], (unsigned long long)counts.commands[k]);
    std::printf("count pins %llu\n", (unsigned long long)counts.toggles);
#endif
#if BOARD_DDR3
    std::printf("chip %llu\n", (unsigned long long)ddr3.counts.clocks);
    static const char *const names[] = {"mode", "refresh", "precharge", "activate", "write", "read"};
    for (unsigned k = 0; k < sizeof names / sizeof *names; k++)
        std::printf("count %s %llu\n", names[k], (unsigned long long)ddr3.counts.commands[k]);
#endif
    std::printf("cycles %llu\n", (unsigned long long)cycle);
    return status;
}

} // namespace

int main(int argc, char **argv) {
    try {
        return run(argc, argv);
    } catch (Status status) {
        return status;
    }
}
