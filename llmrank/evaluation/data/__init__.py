"""Data: files and protocols go in, cases and what may be learned from come out."""
