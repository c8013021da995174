"""Articulated rigid bodies: joint coordinates, contact, muscles, and their adjoints."""
