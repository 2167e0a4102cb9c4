// A DDR3 SDRAM of 16 bits at its pins, in time, with CAS latencies that are set from outside: what it takes and gives with
// which edges. Its commands' times are checked elsewhere (sim/board/ddr3.hpp); here those of the pins are: commands stand
// still around the edge of CK, strobes of a write are within a quarter of its edge, data stand still around the strobe.
// `problems` counts what is wrong; the last one is displayed. Of the array it has 16 rows and 32 bursts of each.
`timescale 1ns/1ps

module ddr3_chip(input ck, cke, reset_n, ras_n, cas_n, we_n, input [2:0] ba, input [14:0] a, inout [15:0] dq, inout [1:0] dqs,
                 input [1:0] dm);
    reg [3:0] cas = 6, cas_write = 5;
    // Of the ways to and from the chip, with its tDQSCK; the same for a byte's data and strobe. In ps.
    reg [15:0] out_ps = 500, back_ps0 = 900, back_ps1 = 1100;
    integer problems = 0, writes = 0, reads = 0;

    // All pins at the chip
    wire [22:0] command = {a, ba, reset_n, cke, ras_n, cas_n, we_n};
    reg clock;
    reg [22:0] pins;
    reg [15:0] data;
    reg [1:0] strobe, mask;
    always @(ck) clock <= #(out_ps / 1000.0) ck;
    always @(command) pins <= #(out_ps / 1000.0) command;
    always @(dq) data <= #(out_ps / 1000.0) dq;
    always @(dqs) strobe <= #(out_ps / 1000.0) dqs;
    always @(dm) mask <= #(out_ps / 1000.0) dm;

    real period = 3.2, edge_at = 0, pins_at = 0, data_at[0:1];
    integer number = 0; // of the rising edge of the clock
    event edge_taken;
    always @(pins) begin
        pins_at = $realtime;
        if (pins_at - edge_at < 0.2 * period && number > 8 && cke)
            wrong("a command changes behind the edge of CK");
    end
    always @(data[7:0], mask[0]) data_at[0] = $realtime;
    always @(data[15:8], mask[1]) data_at[1] = $realtime;

    task wrong(input [8 * 60 - 1:0] what);
        begin
            problems = problems + 1;
            $display("%t DDR3 at its pins: %0s", $realtime, what);
        end
    endtask

    reg [127:0] array [0:4095];
    reg [14:0] rows [0:7];
    // Of the bursts under way, by the edge of their first beat
    reg writing [0:63], reading [0:63];
    reg [11:0] where [0:63];
    integer k;
    initial for (k = 0; k < 64; k = k + 1) {writing[k], reading[k]} = 0;

    wire [2:0] bank = pins[7:5];
    wire [14:0] address = pins[22:8];
    always @(posedge clock) begin
        if ($realtime - edge_at < 20)
            period = $realtime - edge_at;
        edge_at = $realtime;
        number = number + 1;
        writing[(number + 32) % 64] = 0;
        reading[(number + 32) % 64] = 0;
        if (pins[4] && pins[3]) begin
            if (pins[2:0] != 7 && edge_at - pins_at < 0.2 * period)
                wrong("a command changes before the edge of CK");
            case (pins[2:0])
            3: rows[bank] = address;
            4: begin
                writing[(number + cas_write) % 64] = 1;
                where[(number + cas_write) % 64] = {rows[bank][3:0], bank, address[7:3]};
                writes = writes + 1;
            end
            5: begin
                reading[(number + cas) % 64] = 1;
                where[(number + cas) % 64] = {rows[bank][3:0], bank, address[7:3]};
                reads = reads + 1;
            end
            endcase
        end
        -> edge_taken;
    end

    // Writes: beat 2 k is taken with the rising edge of the strobe that is nearest to edge k of the clock.
    genvar b;
    generate for (b = 0; b < 2; b = b + 1) begin : lane
        integer beat = 8, at = 0;
        real due, first;
        task take;
            begin
                if (^data[8 * b +: 8] === 1'bx || mask[b] === 1'bx)
                    wrong("data of a write are undefined");
                if ($realtime - data_at[b] < 0.2 * period)
                    wrong("data of a write change before the strobe");
                if (mask[b] === 1'b0)
                    array[where[at]][16 * beat + 8 * b +: 8] = data[8 * b +: 8];
                beat = beat + 1;
            end
        endtask
        // A quarter before the edge of a burst's first beat everything begins
        always @(posedge clock) begin
            #(0.7 * period);
            if (writing[(number + 1) % 64]) begin
                if (beat != 8)
                    wrong("a burst with too few edges of its strobe");
                beat = 0;
                first = edge_at + period;
                at = (number + 1) % 64;
            end
        end
        always @(posedge strobe[b])
            if (beat < 8) begin
                if (beat % 2)
                    wrong("strobes of a write out of order");
                due = first + beat / 2 * period;
                if ($realtime - due > 0.25 * period || due - $realtime > 0.25 * period)
                    wrong("a strobe of a write is not at the edge of CK");
                take;
            end
        always @(negedge strobe[b])
            if (beat < 8) begin
                if (beat == 0)
                    wrong("the strobe of a write begins high");
                else
                    take;
            end
    end endgenerate

    // Reads: strobe and data leave with the edges of the clock; data are undefined for a fifth of a beat behind each.
    reg [1:0] strobes = 2'bzz;
    reg [15:0] given = 16'hz;
    integer place = 8, source = 0;
    always @(edge_taken) begin
        if (reading[number % 64]) begin
            place = 0;
            source = number % 64;
        end
        if (place < 8)
            give(1);
        else if (reading[(number + 1) % 64])
            strobes <= 0; // the preamble
        else begin
            strobes <= 2'bzz;
            given <= 16'hz;
        end
    end
    always @(negedge clock)
        if (place < 8)
            give(0);
    task give(input level);
        begin
            strobes <= {2{level}};
            given <= 16'hx;
            given <= #(0.1 * period) array[where[source]][16 * place +: 16];
            place = place + 1;
        end
    endtask
    reg [7:0] low, high;
    reg strobe_low, strobe_high;
    always @(given) begin
        low <= #(back_ps0 / 1000.0) given[7:0];
        high <= #(back_ps1 / 1000.0) given[15:8];
    end
    always @(strobes) begin
        strobe_low <= #(back_ps0 / 1000.0) strobes[0];
        strobe_high <= #(back_ps1 / 1000.0) strobes[1];
    end
    initial {low, high, strobe_low, strobe_high} = {16'hz, 2'bzz};
    assign dq = {high, low};
    assign dqs = {strobe_high, strobe_low};
endmodule
