// The memory port through LiteDRAM with clocks and the chip. The clock of the pins stops and its divider is reset as the
// start of LiteDRAM's cells wants it.
`timescale 1ns/1ps

module litedram_bench;
    reg pll = 0, clk = 0, init_clk = 0, init_rst = 1, memory_rst = 1, rst = 1;
    always #(2.5) pll = ~pll;
    always #(10) clk = ~clk;
    always #(5) init_clk = ~init_clk;
    wire memory2x_clk, memory_clk, stop, reset, started;
    reg reads_valid = 0, write_valid = 0;
    reg [24:0] reads_address = 0, write_address = 0;
    reg [7:0] reads_length = 0;
    reg [127:0] word_data = 0;
    reg [15:0] word_mask = 0;
    wire reads_ready, write_ready, data_valid, refreshing, done, failed;
    wire [127:0] data_read;
    wire [63:0] good;
    wire ck, cke, odt, reset_n, ras_n, cas_n, we_n;
    wire [2:0] ba;
    wire [14:0] a;
    wire [1:0] dm, dqs_o, dqs_t, dqs;
    wire [15:0] dq_o, dq_t, dq;
    ECLKSYNCB stopper(.ECLKI(pll), .STOP(stop), .ECLKO(memory2x_clk));
    CLKDIVF divider(.CLKI(memory2x_clk), .RST(reset), .ALIGNWD(1'b0), .CDIVX(memory_clk));
    memory memory(.clk(clk), .rst(rst), .memory_clk(memory_clk), .memory_rst(memory_rst), .memory2x_clk(memory2x_clk),
        .init_clk(init_clk), .init_rst(init_rst), .reads_valid(reads_valid), .reads_ready(reads_ready),
        .reads_address(reads_address), .reads_length(reads_length), .data_valid(data_valid), .data_read(data_read),
        .write_valid(write_valid), .write_ready(write_ready), .write_address(write_address), .word_data(word_data),
        .word_mask(word_mask), .refreshing(refreshing), .done(done), .failed(failed), .good(good), .stop(stop),
        .reset(reset), .started(started), .ck(ck), .cke(cke), .odt(odt), .reset_n(reset_n), .ras_n(ras_n), .cas_n(cas_n),
        .we_n(we_n), .ba(ba), .a(a), .dm(dm), .dq_o(dq_o), .dq_t(dq_t), .dq_i(dq), .dqs_o(dqs_o), .dqs_t(dqs_t),
        .dqs_i(dqs));
    genvar k;
    generate
        for (k = 0; k < 16; k = k + 1) begin : dq_pad
            assign dq[k] = dq_t[k] ? 1'bz : dq_o[k];
        end
        for (k = 0; k < 2; k = k + 1) begin : dqs_pad
            assign dqs[k] = dqs_t[k] ? 1'bz : dqs_o[k];
        end
    endgenerate
    ddr3_chip chip(.ck(ck), .cke(cke), .reset_n(reset_n), .ras_n(ras_n), .cas_n(cas_n), .we_n(we_n), .ba(ba), .a(a), .dq(dq),
        .dqs(dqs), .dm(dm));
endmodule
