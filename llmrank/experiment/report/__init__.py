"""Findings go in, what people read comes out: one HTML page that opens offline, Markdown, and a summary for the terminal."""
