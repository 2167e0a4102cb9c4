// Behaviour of the ECP5's cells for DDR3 at a gear of two, in time: what their clocks, pointers and gates do, after Lattice's
// technical note FPGA-TN-02035. T is the period of ECLK. What the note leaves open is set so that LiteDRAM's PHY, which works
// on boards, reads and writes through these cells: ODDRX2F is a cycle of SCLK later than the cells at DQ and DQS; the first
// half of DQSW270 is its low one; the pairs are read `READ_LATENCY` T behind the read pulse and leave two cycles later.
// A cycle of SCLK begins at the rising edge of ECLK at which SCLK, a little later, is still low.
`timescale 1ns/1ps

module ECLKSYNCB(input ECLKI, STOP, output ECLKO);
    reg run = 0, seen = 0;
    always @(negedge ECLKI) begin
        seen <= !STOP;
        run <= seen;
    end
    assign ECLKO = ECLKI & run;
endmodule

module CLKDIVF(input CLKI, RST, ALIGNWD, output reg CDIVX);
    parameter DIV = "2.0";
    parameter GSR = "DISABLED";
    initial CDIVX = 0;
    always @(posedge CLKI or posedge RST)
        if (RST)
            CDIVX <= #0.05 0;
        else
            CDIVX <= #0.05 ~CDIVX;
endmodule

// DDRDEL is high as soon as a code of a quarter of T has been handed out.
module DDRDLLA(input CLK, RST, UDDCNTLN, FREEZE, output reg DDRDEL, LOCK,
               output DCNTL0, DCNTL1, DCNTL2, DCNTL3, DCNTL4, DCNTL5, DCNTL6, DCNTL7);
    parameter FORCE_MAX_DELAY = "NO";
    parameter GSR = "DISABLED";
    integer count = 0;
    initial {DDRDEL, LOCK} = 0;
    always @(posedge CLK)
        if (RST)
            {count, LOCK, DDRDEL} <= 0;
        else if (!FREEZE) begin
            count <= count + 1;
            LOCK <= count >= 64;
            if (LOCK && !UDDCNTLN)
                DDRDEL <= 1;
        end
endmodule

module DELAYG(input A, output reg Z);
    parameter DEL_MODE = "USER_DEFINED";
    parameter DEL_VALUE = 0;
    always @(A) Z <= #(DEL_VALUE * 0.025) A;
endmodule

module ODDRX2F(input SCLK, ECLK, RST, D0, D1, D2, D3, output reg Q);
    parameter GSR = "ENABLED";
    reg [3:0] taken, out;
    always @(posedge ECLK)
        if (!SCLK) begin
            taken <= {D3, D2, D1, D0};
            out <= taken;
            Q <= RST ? 1'b0 : taken[0];
        end else
            Q <= RST ? 1'b0 : out[2];
    always @(negedge ECLK)
        Q <= RST ? 1'b0 : SCLK ? out[1] : out[3];
endmodule

module ODDRX2DQA(input SCLK, ECLK, DQSW270, RST, D0, D1, D2, D3, output reg Q);
    parameter GSR = "ENABLED";
    reg [3:0] taken;
    always @(posedge ECLK)
        if (!SCLK)
            taken <= {D3, D2, D1, D0};
    // A quarter and three quarters of T behind an edge of ECLK
    always @(negedge DQSW270) Q <= RST ? 1'b0 : SCLK ? taken[0] : taken[2];
    always @(posedge DQSW270) Q <= RST ? 1'b0 : SCLK ? taken[1] : taken[3];
endmodule

module ODDRX2DQSB(input SCLK, ECLK, DQSW, RST, D0, D1, D2, D3, output reg Q);
    parameter GSR = "ENABLED";
    reg [3:0] taken;
    always @(posedge DQSW)
        if (!SCLK) begin
            taken <= {D3, D2, D1, D0};
            Q <= RST ? 1'b0 : D0;
        end else
            Q <= RST ? 1'b0 : taken[2];
    always @(negedge DQSW)
        Q <= RST ? 1'b0 : SCLK ? taken[1] : taken[3];
endmodule

module TSHX2DQA(input SCLK, ECLK, DQSW270, RST, T0, T1, output reg Q);
    parameter GSR = "ENABLED";
    parameter REGSET = "SET";
    reg [1:0] taken = 3;
    initial Q = 1;
    always @(posedge ECLK)
        if (!SCLK)
            taken <= RST ? 2'b11 : {T1, T0};
    always @(negedge DQSW270) Q <= SCLK ? taken[0] : taken[1];
endmodule

module TSHX2DQSA(input SCLK, ECLK, DQSW, RST, T0, T1, output reg Q);
    parameter GSR = "ENABLED";
    parameter REGSET = "SET";
    reg next = 1;
    initial Q = 1;
    always @(posedge DQSW)
        if (!SCLK) begin
            Q <= RST ? 1'b1 : T0;
            next <= RST ? 1'b1 : T1;
        end else
            Q <= next;
endmodule

// The strobe of a byte: its clocks for writes, and for reads the gate that lets the chip's strobe pass and the pointers of
// the eight pairs of beats in IDDRX2DQA. The gate opens with the read pulse, READCLKSEL quarters of T later. A strobe that
// nobody drives is noise. A gate at the wrong place moves the pointers apart, until PAUSE or a reset brings them together.
module DQSBUFM(input DQSI, READ0, READ1, READCLKSEL0, READCLKSEL1, READCLKSEL2, DDRDEL, ECLK, SCLK, RST, PAUSE,
               RDLOADN, RDMOVE, RDDIRECTION, WRLOADN, WRMOVE, WRDIRECTION,
               DYNDELAY0, DYNDELAY1, DYNDELAY2, DYNDELAY3, DYNDELAY4, DYNDELAY5, DYNDELAY6, DYNDELAY7,
               output DQSR90, DQSW, DQSW270, output RDPNTR0, RDPNTR1, RDPNTR2, WRPNTR0, WRPNTR1, WRPNTR2,
               output DATAVALID, output reg BURSTDET, output RDCFLAG, WRCFLAG);
    parameter DQS_LI_DEL_ADJ = "FACTORYONLY";
    parameter DQS_LI_DEL_VAL = 0;
    parameter DQS_LO_DEL_ADJ = "FACTORYONLY";
    parameter DQS_LO_DEL_VAL = 0;
    parameter GSR = "ENABLED";
    parameter READ_LATENCY = 5;
    real last = 0, period = 100;
    always @(posedge ECLK) begin
        if ($realtime - last < 20)
            period = $realtime - last;
        last = $realtime;
    end

    // Without the code of the DLL there is no quarter
    wire ready = DDRDEL === 1'b1;
    reg late = 0;
    always @(ECLK) late <= #(ready ? 0.75 * period : 0.0) ECLK;
    assign DQSW = ECLK;
    assign DQSW270 = late;

    reg noise = 0;
    always #(1.0 + ($urandom % 5000) / 1000.0) noise = ~noise;
    wire driven = DQSI === 1'b0 || DQSI === 1'b1;
    wire dqs = driven ? DQSI : noise;

    reg half = 0, now = 0, gate = 0, passed = 0, quarter = 0, opened = 0;
    reg [15:0] pulses = 0;
    reg [2:0] write = 0, read = 0;
    integer edges = 0;
    real since = 0;
    wire [2:0] place = {READCLKSEL2, READCLKSEL1, READCLKSEL0};
    wire pulse = SCLK ? half : READ0;
    assign {RDPNTR2, RDPNTR1, RDPNTR0} = read;
    assign {WRPNTR2, WRPNTR1, WRPNTR0} = write;
    assign DQSR90 = quarter;
    assign DATAVALID = pulses[READ_LATENCY - 1];
    always @(posedge ECLK) begin
        if (!SCLK)
            half <= READ1;
        now <= pulse === 1'b1;
        pulses <= {pulses[14:0], pulse === 1'b1};
        if (PAUSE !== 1'b0 || RST !== 1'b0)
            read <= 0;
        else if (pulses[READ_LATENCY - 1])
            read <= #0.01 read + 1;
    end
    always @(now) gate <= #(place * 0.25 * period) now;
    always @(posedge dqs) begin
        passed <= gate;
        if (gate)
            edges = edges + 1;
    end
    always @(negedge dqs) passed <= 0;
    always @(passed) quarter <= #(ready ? 0.25 * period : 0.0) passed;
    always @(negedge quarter) write <= #0.01 PAUSE ? 0 : write + 1;
    always @(PAUSE or RST)
        if (PAUSE !== 1'b0 || RST !== 1'b0)
            write <= 0;
    initial BURSTDET = 0;
    always @(posedge gate) begin
        edges = 0;
        since = $realtime;
        opened = DQSI === 1'b0; // the preamble
    end
    always @(negedge gate)
        if (opened && edges == $rtoi(($realtime - since) / period + 0.5)) begin
            BURSTDET <= 1;
            BURSTDET <= #(4 * period) 0;
        end
endmodule

module IDDRX2DQA(input SCLK, ECLK, DQSR90, D, RST, RDPNTR0, RDPNTR1, RDPNTR2, WRPNTR0, WRPNTR1, WRPNTR2,
                 output reg Q0, Q1, Q2, Q3, output QWL);
    parameter GSR = "ENABLED";
    reg [1:0] pairs [0:7];
    reg first;
    reg [3:0] last, later, latest;
    always @(posedge DQSR90) first <= D;
    always @(negedge DQSR90) pairs[{WRPNTR2, WRPNTR1, WRPNTR0}] <= {D, first};
    always @(posedge ECLK) last <= {pairs[{RDPNTR2, RDPNTR1, RDPNTR0}], last[3:2]};
    always @(posedge SCLK) begin
        later <= last;
        latest <= later;
        {Q3, Q2, Q1, Q0} <= latest;
    end
endmodule
