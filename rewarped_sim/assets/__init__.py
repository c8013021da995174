"""Geometry of tools, written as tables."""
