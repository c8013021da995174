"""Programs that use the packages as a reader would; each is run by `python -m examples.<name>`."""
