"""The hardware's arithmetic on a CPU: kernels in C, bit for bit what the golden model gives, and fast."""
