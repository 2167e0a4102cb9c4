// Behaviour of the cells that the forms of the row accumulator instantiate, for simulation.

module ccu2c_half #(parameter [15:0] INIT = 0, parameter INJECT1 = "YES")
                   (input A, B, C, D, CIN, output S, COUT);
    wire injected = INJECT1 == "YES";
    wire propagate = INIT[{D, C, B, A}];
    wire generated = INIT[{B, A}] & ~injected;
    assign S = propagate ^ (CIN & ~injected);
    assign COUT = propagate ? CIN : generated;
endmodule

module CCU2C #(parameter [15:0] INIT0 = 0, INIT1 = 0, parameter INJECT1_0 = "YES", INJECT1_1 = "YES")
              (input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
    wire between;
    ccu2c_half #(.INIT(INIT0), .INJECT1(INJECT1_0)) lower(A0, B0, C0, D0, CIN, S0, between);
    ccu2c_half #(.INIT(INIT1), .INJECT1(INJECT1_1)) upper(A1, B1, C1, D1, between, S1, COUT);
endmodule

module LUT6_2 #(parameter [63:0] INIT = 0) (input I0, I1, I2, I3, I4, I5, output O6, O5);
    assign O6 = INIT[{I5, I4, I3, I2, I1, I0}];
    assign O5 = INIT[{1'b0, I4, I3, I2, I1, I0}];
endmodule

module carry_muxes #(parameter LENGTH = 4)
                    (input CI, input [LENGTH-1:0] DI, S, output [LENGTH-1:0] O, CO);
    wire [LENGTH-1:0] into = {CO, CI};
    assign O = S ^ into;
    genvar k;
    generate
        for (k = 0; k < LENGTH; k = k + 1) assign CO[k] = S[k] ? into[k] : DI[k];
    endgenerate
endmodule

module CARRY4(input CI, CYINIT, input [3:0] DI, S, output [3:0] O, CO);
    carry_muxes #(4) muxes(CI | CYINIT, DI, S, O, CO);
endmodule

module CARRY8(input CI, CI_TOP, input [7:0] DI, S, output [7:0] O, CO);
    carry_muxes #(8) muxes(CI, DI, S, O, CO);
endmodule
