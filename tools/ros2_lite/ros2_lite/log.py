"""What the launch system itself says, in the format of the real command."""


def log(level: str, name: str, message: str) -> None:
    """Print one line; `level` is INFO, WARNING or ERROR, `name` is `launch` or the label of a process."""
    print(f"[{level}] [{name}]: {message}", flush=True)
