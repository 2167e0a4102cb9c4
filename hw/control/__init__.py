"""Microprogram sequencer, host registers, counters."""
