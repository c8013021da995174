"""Material point method: soft things, driven tools, and their adjoints."""
