"""Take the pictures of the documentation from finished training runs: `make docs ARGS="runs/<run> runs/<run>"`.

Of each run three frames of the rollout video, one below the other; of all runs together the learning curves.
"""

import argparse
import sys
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray

PICTURES = Path(__file__).parent / "pictures"
MOMENTS = (0.0, 0.25, 1.0)
"""Shares of the episode that are shown."""
COLUMNS = 2
"""Learning curves side by side."""


def main() -> int:
    """Read the runs' videos and curves, write docs/pictures/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="*",
        default=[Path("runs/rolling_flat_small_sapo_0")],
        help="folders of finished runs",
    )
    runs = parser.parse_args().runs
    for path in (run / name for run in runs for name in ("rollout.mp4", "learning_curve.png")):
        if not path.exists():
            print(f"{path} is missing: give folders of finished runs, or `make train` first", file=sys.stderr)
            return 2
    PICTURES.mkdir(exist_ok=True)
    for run in runs:
        task = run.resolve().name.rsplit("_", 2)[0]
        imageio.imwrite(PICTURES / f"{task}.png", moments(run / "rollout.mp4"))
    curves = [np.asarray(imageio.imread(run / "learning_curve.png"))[..., :3] for run in runs]
    imageio.imwrite(PICTURES / "learning_curves.png", tiled(curves))
    print(f"wrote {PICTURES}")
    return 0


def moments(video: Path) -> NDArray[np.uint8]:
    """Frames of a video at `MOMENTS`, one below the other."""
    frames = [np.asarray(frame) for frame in imageio.get_reader(video).iter_data()]
    return np.concatenate([frames[round(moment * (len(frames) - 1))] for moment in MOMENTS], axis=0)


def tiled(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures of one size in rows of `COLUMNS`, the last row filled up with white."""
    columns = min(COLUMNS, len(pictures))
    pictures = pictures + [np.full_like(pictures[0], 255)] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(pictures), columns)]
    return np.concatenate(rows, axis=0)


if __name__ == "__main__":
    sys.exit(main())
