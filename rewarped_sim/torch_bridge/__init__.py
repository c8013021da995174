"""The one place where torch meets the engines: a control step of physics as a differentiable torch function."""

from rewarped_sim.torch_bridge.bridge import Bridge, WindowError, free_memory, torch_stream
from rewarped_sim.torch_bridge.engines import AnyModel, make_bridge

__all__ = ["AnyModel", "Bridge", "WindowError", "free_memory", "make_bridge", "torch_stream"]
