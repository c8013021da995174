"""Tools and articulated models, written as tables."""
