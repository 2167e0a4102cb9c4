// The memory's controller, leveller and cells with clocks and the chip. The clock of the pins stops and its divider is reset
// as the start of the cells wants it.
`timescale 1ns/1ps

module ddr3_bench;
    reg pll = 0, init_clk = 0, init_rst = 1, rst = 1;
    always #(1.6) pll = ~pll;
    always #(5) init_clk = ~init_clk;
    wire memory2x_clk, clk, stop, reset;
    reg valid = 0, write_ = 0;
    reg [24:0] address = 0;
    reg [7:0] length = 0;
    reg [127:0] data = 0;
    reg [15:0] mask = 0;
    wire accepted, data_valid, done, failed, started;
    wire [127:0] data_read;
    wire [63:0] good;
    wire [5:0] delay;
    wire [3:0] slip;
    wire ck, cke, odt, reset_n, ras_n, cas_n, we_n;
    wire [2:0] ba;
    wire [14:0] a;
    wire [1:0] dm, dqs_o, dqs_t, dqs;
    wire [15:0] dq_o, dq_t, dq;
    ECLKSYNCB stopper(.ECLKI(pll), .STOP(stop), .ECLKO(memory2x_clk));
    CLKDIVF divider(.CLKI(memory2x_clk), .RST(reset), .ALIGNWD(1'b0), .CDIVX(clk));
    memory memory(.clk(clk), .rst(rst), .memory2x_clk(memory2x_clk), .init_clk(init_clk), .init_rst(init_rst),
        .valid(valid), .write_(write_), .address(address), .length(length), .data(data), .mask(mask), .accepted(accepted),
        .data_valid(data_valid), .data_read(data_read), .done(done), .failed(failed), .good(good), .delay(delay), .slip(slip),
        .stop(stop), .reset(reset), .started(started), .ck(ck), .cke(cke), .odt(odt), .reset_n(reset_n), .ras_n(ras_n),
        .cas_n(cas_n), .we_n(we_n), .ba(ba), .a(a), .dm(dm), .dq_o(dq_o), .dq_t(dq_t), .dq_i(dq), .dqs_o(dqs_o), .dqs_t(dqs_t),
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
