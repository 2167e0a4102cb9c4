// Ports of a verilated unit as bytes, and its AXI ports by the names that the harness gives them (harness.py: axi0_arid).
#pragma once

#include <cstdint>
#include <cstring>

// Ports of up to 64 bits are integers and wider ones arrays of 32-bit words; on a little-endian machine the bytes of
// either are those of the number.
template <class Port> const uint8_t *bytes_of(const Port &port) { return reinterpret_cast<const uint8_t *>(&port); }
template <class Port> void set_bytes(Port &port, const uint8_t *source, size_t size) { std::memcpy(&port, source, size); }

// What master k of `top` drives, as AxiPins.
#define AXI_PINS(top, k)                                                                                                 \
    {bool(top.axi##k##_arvalid), bool(top.axi##k##_awvalid), bool(top.axi##k##_wvalid), bool(top.axi##k##_wlast),        \
     bool(top.axi##k##_rready), bool(top.axi##k##_bready), top.axi##k##_araddr, top.axi##k##_awaddr,                     \
     top.axi##k##_arid, top.axi##k##_arlen, top.axi##k##_arsize, top.axi##k##_arburst, top.axi##k##_awid,                \
     top.axi##k##_awlen, top.axi##k##_awsize, top.axi##k##_awburst, bytes_of(top.axi##k##_wdata),                        \
     bytes_of(top.axi##k##_wstrb)}

// Gives it an AxiAnswer; `size` bytes a beat.
#define AXI_ANSWER(top, k, answer, size)                                                                                 \
    top.axi##k##_arready = answer.arready;                                                                               \
    top.axi##k##_awready = answer.awready;                                                                               \
    top.axi##k##_wready = answer.wready;                                                                                 \
    top.axi##k##_rvalid = answer.rvalid;                                                                                 \
    top.axi##k##_rlast = answer.rlast;                                                                                   \
    top.axi##k##_rid = answer.rid;                                                                                       \
    top.axi##k##_rresp = answer.rresp;                                                                                   \
    if (answer.rvalid)                                                                                                   \
        set_bytes(top.axi##k##_rdata, answer.rdata, size);                                                               \
    top.axi##k##_bvalid = answer.bvalid;                                                                                 \
    top.axi##k##_bid = answer.bid;                                                                                       \
    top.axi##k##_bresp = answer.bresp;
