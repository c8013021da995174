"""Flush denormal numbers to zero for the length of a graph, on x86 CPUs.

Dough in free fall has strains of 1e-10 whose powers, and adjoints, fall below 1e-38. A CPU works on such numbers in
microcode: a control step of falling dough took five times as long as one in contact. GPUs do not mind. The mode of
the calling thread is put back afterwards, so nothing outside of the engine changes.
"""

import warp as wp

_ON = """
#if defined(__x86_64__) && !defined(__CUDA_ARCH__)
    unsigned int mode = __builtin_ia32_stmxcsr();
    saved.data[0] = static_cast<int>(mode);
    __builtin_ia32_ldmxcsr(mode | 0x8040u);  // flush to zero, denormals are zero
#endif
"""
_OFF = """
#if defined(__x86_64__) && !defined(__CUDA_ARCH__)
    __builtin_ia32_ldmxcsr(static_cast<unsigned int>(saved.data[0]));
#endif
"""


@wp.func_native(_ON)
def _flush_on(saved: wp.array(dtype=int)): ...


@wp.func_native(_OFF)
def _flush_off(saved: wp.array(dtype=int)): ...


@wp.kernel(enable_backward=False, module="unique")
def _begin(saved_out: wp.array(dtype=int)):
    _flush_on(saved_out)


@wp.kernel(enable_backward=False, module="unique")
def _end(saved: wp.array(dtype=int)):
    _flush_off(saved)


class DenormalFlush:
    """Launches to put at the start and the end of a sequence that runs on one CPU thread."""

    def __init__(self, device: wp.Device) -> None:
        self._device = device
        self._saved = wp.zeros(1, dtype=int, device=device)

    def begin(self) -> None:
        """Save the thread's mode and flush from here on."""
        wp.launch(_begin, 1, inputs=[self._saved], device=self._device)

    def end(self) -> None:
        """Put the thread's mode back."""
        wp.launch(_end, 1, inputs=[self._saved], device=self._device)
