// Behaviour of the iCE40 primitives whose model in yosys cannot be synthesised, for the simulation of netlists
// (sim/board/netlist.py).

// Single-port RAM of 16384 words of 16 bits. The output is undefined behind a write, and while the block is off.
module SB_SPRAM256KA(
    input [13:0] ADDRESS, input [15:0] DATAIN, input [3:0] MASKWREN, input WREN, CHIPSELECT, CLOCK,
    input STANDBY, SLEEP, POWEROFF, // POWEROFF is low active
    output reg [15:0] DATAOUT
);
    reg [15:0] words [0:16383];
    wire off = STANDBY | SLEEP | ~POWEROFF;
    integer k;
    always @(posedge CLOCK)
        if (off)
            DATAOUT <= 16'bx;
        else if (CHIPSELECT) begin
            DATAOUT <= WREN ? 16'bx : words[ADDRESS];
            if (WREN)
                for (k = 0; k < 4; k = k + 1)
                    if (MASKWREN[k]) words[ADDRESS][4 * k +: 4] <= DATAIN[4 * k +: 4];
        end
endmodule
