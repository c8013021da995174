"""Take the pictures of the documentation from a finished training run: `make docs ARGS=runs/<run>`.

Three frames of the rollout video, one below the other, and the learning curve.
"""

import argparse
import shutil
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np

PICTURES = Path(__file__).parent / "pictures"
MOMENTS = (0.0, 0.25, 1.0)
"""Shares of the episode that are shown."""


def main() -> int:
    """Read the run's video and curve, write docs/pictures/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "run",
        type=Path,
        nargs="?",
        default=Path("runs/rolling_flat_small_sapo_0"),
        help="folder of a finished run",
    )
    run = parser.parse_args().run
    video, curve = run / "rollout.mp4", run / "learning_curve.png"
    for path in (video, curve):
        if not path.exists():
            print(
                f"{path} is missing: give the folder of a finished run, or `make train` first",
                file=sys.stderr,
            )
            return 2
    frames = [np.asarray(frame) for frame in imageio.get_reader(video)]
    shown = [frames[round(moment * (len(frames) - 1))] for moment in MOMENTS]
    PICTURES.mkdir(exist_ok=True)
    imageio.imwrite(PICTURES / "rolling_flat_small.png", np.concatenate(shown, axis=0))
    shutil.copyfile(curve, PICTURES / "learning_curve.png")
    print(f"wrote {PICTURES}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
