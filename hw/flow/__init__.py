"""From gateware to bitstreams: yosys, nextpnr, packers, and counts of cells."""
