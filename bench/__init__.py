"""Measurements: `make bench` runs them, prints tables and writes JSON to bench/results/."""
