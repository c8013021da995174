"""A depth camera before a `Scene`: particles, skins of soft bodies and rigid shapes hide one another and are seen.

Particles are balls. Those of a body lie at random, and balls of their own radius leave gaps through which one sees deep
into it; balls of `SensorConfig.skin` = 1.5 radii look, on average, as far from the camera as the face of the body is
(docs/vision.md). Strings are too thin to be seen.
"""

from __future__ import annotations

import numpy as np
import warp as wp

from rewarped_sim.engine.range_image import PixelRays, PosedShape, see_balls, see_shapes, see_skin
from rewarped_sim.scene import Scene
from rewarped_sim.sensor_model import Image, SensorConfig, disturbed


class SceneCamera:
    """Measures depths. What it says is a function of scene, seed and number of the picture, and of nothing else."""

    def __init__(self, config: SensorConfig, *, device: str = "cpu") -> None:
        """device: where depths are computed, by Warp's name for it."""
        self._config = config
        self._device = wp.get_device(device)
        self._rays = PixelRays(
            width=config.width,
            height=config.height,
            focal=config.focal,
            centre=config.centre,
            position=config.position,
            axes=config.axes,
        )

    def measure(self, scene: Scene, number: int) -> Image:
        """Return the picture of that number: (height, width) depths [m], NaN where there is no point."""
        random = np.random.default_rng((self._config.seed, number))
        return disturbed(self.see(scene), self._config, random)

    def see(self, scene: Scene) -> Image:
        """Return true depths, (height, width) [m]; infinite where nothing is in range, and where it is filtered."""
        far_m, device = self._config.max_range_m, self._device
        shapes = [shape for shape in scene.shapes if not shape.ghost]
        posed = [
            PosedShape(
                kind=shape.kind,
                size=shape.size,
                position=shape.position.tolist(),
                quaternion=shape.quaternion.tolist(),
            )
            for shape in shapes
        ]
        rigid, nearest = see_shapes(self._rays, posed, far_m=far_m, device=device)
        radius = self._config.skin * scene.particle_radius
        soft = see_balls(self._rays, scene.particles, radius=radius, far_m=far_m, device=device)
        for surface in scene.surfaces:
            skin = see_skin(self._rays, surface.vertices, surface.triangles, far_m=far_m, device=device)
            soft = np.minimum(soft, skin)
        filtered = np.isin(
            nearest, [i for i, shape in enumerate(shapes) if shape.tool and self._config.self_filter]
        )
        return np.where(soft < rigid, soft, np.where(filtered, np.float32(np.inf), rigid))
