"""One device on a wire: frames, requests, registers and runs."""
