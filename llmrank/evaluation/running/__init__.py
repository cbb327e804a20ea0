"""A run: a suite goes in, results come out one by one, whatever interrupts it."""
