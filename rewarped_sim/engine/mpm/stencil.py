"""The 27 nodes around a particle, their quadratic B-spline weights, and the sums over them that transfers take.

Transfers and their adjoints need two things of the nodes, whose values g have four components:

    sum_nodes   sum w g,   sum w g r^T,   and for a linear field q = q0 + a qx + b qy + c qz:  sum (g q) grad w
    add_nodes   g += w q

Both factor along z into nine lines of three nodes. They are written in C++, because a CPU then works on the four
components of a node at once, which the code that Warp generates from its vectors does not; the control step of a dough
task takes two thirds of the time. Distances are in cells, which keeps float32 sums small.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.mpm.grid import grid_functions
from rewarped_sim.engine.scalars import Scalars

# Four components in a register: a vector of the compiler on a CPU, an aligned struct on a GPU. Neither has all
# orders of operands: here it is always vector times scalar.
_FOUR = """
#if defined(__CUDA_ARCH__)
    struct alignas(16) four {
        REAL x, y, z, w;
        CUDA_CALLABLE four operator+(four o) const { return {x + o.x, y + o.y, z + o.z, w + o.w}; }
        CUDA_CALLABLE four operator*(four o) const { return {x * o.x, y * o.y, z * o.z, w * o.w}; }
        CUDA_CALLABLE four operator*(REAL s) const { return {x * s, y * s, z * s, w * s}; }
        CUDA_CALLABLE REAL operator[](int i) const { return i == 0 ? x : i == 1 ? y : i == 2 ? z : w; }
    };
#else
    typedef REAL four __attribute__((vector_size(4 * sizeof(REAL)), aligned(alignof(REAL))));
#endif
    four* nodes = reinterpret_cast<four*>(values.data);
    const four q_first = {q0[0], q0[1], q0[2], q0[3]};
    const four q_x = {qx[0], qx[1], qx[2], qx[3]};
    const four q_y = {qy[0], qy[1], qy[2], qy[3]};
    const four q_z = {qz[0], qz[1], qz[2], qz[3]};
"""
_SUM_NODES = """
    const four zero = q_first * REAL(0.0);
    four total = zero, along_x = zero, along_y = zero, along_z = zero;
    four slope_x = zero, slope_y = zero, slope_z = zero;
#pragma unroll
    for (int a = 0; a < 3; ++a) {
#pragma unroll
        for (int b = 0; b < 3; ++b) {
            const four* line = nodes + at.first + (a * n + b) * n;
            const four g0 = line[0], g1 = line[1], g2 = line[2];
            const four q = q_first + q_x * REAL(a) + q_y * REAL(b);
            const four w1 = g1 * at.wz[1], w2 = g2 * at.wz[2];
            const four s1 = g1 * at.sz[1], s2 = g2 * at.sz[2];
            const four sums = g0 * at.wz[0] + w1 + w2, ramps = w1 + w2 + w2;
            const four sums_s = g0 * at.sz[0] + s1 + s2, ramps_s = s1 + s2 + s2;
            const REAL w = at.wx[a] * at.wy[b];
            const four here = sums * w, products = sums * q + ramps * q_z;
            total = total + here;
            along_x = along_x + here * at.rx[a];
            along_y = along_y + here * at.ry[b];
            along_z = along_z + ramps * w;
            slope_x = slope_x + products * (at.sx[a] * at.wy[b]);
            slope_y = slope_y + products * (at.wx[a] * at.sy[b]);
            slope_z = slope_z + (sums_s * q + ramps_s * q_z) * w;
        }
    }
    const four rows[7] = {total, along_x, along_y, along_z + total * at.rz[0], slope_x, slope_y, slope_z};
    wp::mat_t<7, 4, REAL> result;
#pragma unroll
    for (int i = 0; i < 7; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            result.data[i][j] = rows[i][j];
        }
    }
    return result;
"""
# Hopper and later add an aligned float4 in one operation; a CPU thread is alone on the nodes of its envs.
_ADD_NODES = """
#pragma unroll
    for (int a = 0; a < 3; ++a) {
#pragma unroll
        for (int b = 0; b < 3; ++b) {
            const REAL w = at.wx[a] * at.wy[b];
            const four q = q_first + q_x * REAL(a) + q_y * REAL(b);
            const int line = at.first + (a * n + b) * n;
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                const four part = (q + q_z * REAL(c)) * (w * at.wz[c]);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && IS_FLOAT32
                atomicAdd(reinterpret_cast<float4*>(nodes + line + c), make_float4(part.x, part.y, part.z, part.w));
#elif defined(__CUDA_ARCH__)
                wp::atomic_add(values, line + c, wp::vec_t<4, REAL>(part.x, part.y, part.z, part.w));
#else
                nodes[line + c] = nodes[line + c] + part;
#endif
            }
        }
    }
"""


@cache
def stencil_functions(scalars: Scalars) -> SimpleNamespace:
    """Build `Stencil`, `stencil_of(grid, env, x)`, `sum_nodes` and `add_nodes`.

    `sum_nodes(values, n, stencil, q0, qx, qy, qz)` gives a matrix of seven rows of four: sum w g; sum w g r_x, r_y and
    r_z; and, still to be added up over their four components, the sums of g q times the slopes of w along x, y, z.
    """
    real, vec3, vec4 = scalars.real, scalars.vec3, scalars.vec4
    Grid = grid_functions(scalars).Grid
    mat74 = wp.types.matrix(shape=(7, 4), dtype=real)

    @wp.struct
    class Stencil:
        first: int  # address of the first node
        base: wp.vec3i  # its coordinates
        # per axis: weights of the three nodes, their slopes, and the distances from the particle to them
        wx: vec3
        wy: vec3
        wz: vec3
        sx: vec3
        sy: vec3
        sz: vec3
        rx: vec3
        ry: vec3
        rz: vec3

    @wp.func
    def weights(f: real):
        a = real(1.5) - f
        b = f - real(1.0)
        c = f - real(0.5)
        return vec3(real(0.5) * a * a, real(0.75) - b * b, real(0.5) * c * c)

    @wp.func
    def weight_slopes(f: real):
        return vec3(f - real(1.5), real(2.0) - real(2.0) * f, f - real(0.5))

    @wp.func
    def distances(f: real):
        return vec3(-f, real(1.0) - f, real(2.0) - f)

    @wp.func
    def stencil_of(grid: Grid, env: int, x: vec3):
        """Nodes around x. Clamped, so that an x that is not finite still addresses its own env."""
        result = Stencil()
        base = wp.vec3i()
        for i in range(3):
            base[i] = wp.clamp(int(wp.floor(x[i] * grid.inv_dx - real(0.5))), 0, grid.n - 3)
        f = x * grid.inv_dx - vec3(real(base[0]), real(base[1]), real(base[2]))
        result.base = base
        result.first = ((env * grid.n + base[0]) * grid.n + base[1]) * grid.n + base[2]
        result.wx = weights(f[0])
        result.wy = weights(f[1])
        result.wz = weights(f[2])
        result.sx = weight_slopes(f[0])
        result.sy = weight_slopes(f[1])
        result.sz = weight_slopes(f[2])
        result.rx = distances(f[0])
        result.ry = distances(f[1])
        result.rz = distances(f[2])
        return result

    def native(code: str) -> str:
        is_float32 = "1" if real is wp.float32 else "0"
        return (_FOUR + code).replace("IS_FLOAT32", is_float32).replace("REAL", f"wp::{real.__name__}")

    @wp.func_native(native(_SUM_NODES))
    def sum_nodes(
        values: wp.array(dtype=vec4), n: int, at: Stencil, q0: vec4, qx: vec4, qy: vec4, qz: vec4
    ) -> mat74: ...

    @wp.func_native(native(_ADD_NODES))
    def add_nodes(
        values: wp.array(dtype=vec4), n: int, at: Stencil, q0: vec4, qx: vec4, qy: vec4, qz: vec4
    ): ...

    return SimpleNamespace(Stencil=Stencil, stencil_of=stencil_of, sum_nodes=sum_nodes, add_nodes=add_nodes)
