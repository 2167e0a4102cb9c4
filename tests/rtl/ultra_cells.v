// Behaviour of the UltraRAM block of AMD's UltraScale+ parts as UG573 describes it, for the ways in which the gateware
// uses it (hw/memory/ultra.py): port A writes, port B reads, no output registers. Anything else ends the run.
module URAM288_BASE(
    input CLK, SLEEP,
    input [22:0] ADDR_A, ADDR_B, input [71:0] DIN_A, DIN_B, input [8:0] BWE_A, BWE_B,
    input EN_A, EN_B, RDB_WR_A, RDB_WR_B, RST_A, RST_B, OREG_CE_A, OREG_CE_B, OREG_ECC_CE_A, OREG_ECC_CE_B,
    input INJECT_SBITERR_A, INJECT_SBITERR_B, INJECT_DBITERR_A, INJECT_DBITERR_B,
    output reg [71:0] DOUT_A, DOUT_B, output SBITERR_A, SBITERR_B, DBITERR_A, DBITERR_B
);
    parameter BWE_MODE_A = "PARITY_INTERLEAVED", BWE_MODE_B = "PARITY_INTERLEAVED";
    parameter EN_AUTO_SLEEP_MODE = "FALSE", IREG_PRE_A = "FALSE", IREG_PRE_B = "FALSE";
    parameter OREG_A = "FALSE", OREG_B = "FALSE";
    initial begin
        if (EN_AUTO_SLEEP_MODE != "FALSE" || IREG_PRE_A != "FALSE" || IREG_PRE_B != "FALSE" || OREG_A != "FALSE"
                || OREG_B != "FALSE")
            $fatal(1, "URAM288_BASE: registers and sleep are not modelled");
        if (BWE_MODE_A != "PARITY_INDEPENDENT" || BWE_MODE_B != "PARITY_INDEPENDENT")
            $fatal(1, "URAM288_BASE: BWE_MODE: use PARITY_INDEPENDENT");
    end

    // In this mode an enable is for each byte of bits 63 to 0, and the last one for bits 71 to 64.
    reg [71:0] words [0:4095];
    integer k;
    initial for (k = 0; k < 4096; k = k + 1) words[k] = 0;

    // Port A goes first: what it writes, B reads in the same cycle. A port that writes or is not enabled keeps its
    // output.
    wire [71:0] mask_a, mask_b;
    genvar g;
    generate
        for (g = 0; g < 9; g = g + 1) begin
            assign mask_a[8 * g +: 8] = {8{BWE_A[g]}};
            assign mask_b[8 * g +: 8] = {8{BWE_B[g]}};
        end
    endgenerate
    wire write_a = EN_A & RDB_WR_A & ~SLEEP, write_b = EN_B & RDB_WR_B & ~SLEEP;
    wire [71:0] after_a = words[ADDR_A[11:0]] & ~mask_a | DIN_A & mask_a;
    wire [71:0] seen_b = write_a & ADDR_A[11:0] == ADDR_B[11:0] ? after_a : words[ADDR_B[11:0]];
    always @(posedge CLK) begin
        if (write_a) words[ADDR_A[11:0]] <= after_a;
        if (write_b) words[ADDR_B[11:0]] <= seen_b & ~mask_b | DIN_B & mask_b;
        if (RST_A) DOUT_A <= 0;
        else if (EN_A & ~RDB_WR_A & ~SLEEP) DOUT_A <= words[ADDR_A[11:0]];
        if (RST_B) DOUT_B <= 0;
        else if (EN_B & ~RDB_WR_B & ~SLEEP) DOUT_B <= seen_b;
    end
    assign {SBITERR_A, SBITERR_B, DBITERR_A, DBITERR_B} = 0;
endmodule
