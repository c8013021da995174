"""Vertices on the ground: a spring and a damper upwards, and friction, by one of two laws.

With the depth d of a vertex below its radius, the parts v_z and v_t of its velocity, and the gains of `Ground` (k_e,
k_d, k_f, mu), the force is f_n upwards and f_t along the ground:

    regularized  f_n = k_e d + k_d d max(-v_z, 0),  f_t = -v_t min(k_f, mu f_n / sqrt(v_t^2 + e^2)),  e = 1 mm/s
    published    f_n = k_e d + k_d max(-v_z, 0),    f_t = -v_t min(k_f, mu f_n / |v_t|)

`regularized` is the one to learn with: continuous at touch-down and smooth at rest. `published` is that of the SAPO
paper's soft bodies; its damping sets in with a jump, which no gradient sees.
"""

LAWS = {
    "regularized": """
    push = depth * (body.stiffness + body.approach_damping * approach);
    push_by_depth = body.stiffness + body.approach_damping * approach;
    push_by_approach = body.approach_damping * depth;
    const lanes slip_sq = vx * vx + vy * vy + REAL(1.0e-6);
    """,
    "published": """
    push_by_depth = all(body.stiffness);
    push_by_approach = depth > zero ? all(body.approach_damping) : zero;
    push = depth * push_by_depth + approach * push_by_approach;
    const lanes slip_sq = above(vx * vx + vy * vy, all(REAL(1.0e-12)));
    """,
}
CONTACT_LAWS = tuple(LAWS)


def contact_code(law: str) -> str:
    """C++ that gives `push` and `grip`, the force being (-grip vx, -grip vy, push), and their slopes.

    Before it: `lanes` z, vx, vy, vz of a vertex, and `body`. `grip_by_slip` is twice the slope by the square of v_t.
    """
    return (
        """
    const lanes zero = all(REAL(0.0));
    const lanes depth = above(body.radius - z, zero), approach = above(-vz, zero);
    lanes push, push_by_depth, push_by_approach;
"""
        + LAWS[law]
        + """
    const lanes inverse = REAL(1.0) / root(slip_sq), coulomb = body.friction * push * inverse;
    const auto slides = coulomb < body.friction_stiffness;
    const lanes grip = slides ? coulomb : all(body.friction_stiffness);
    const lanes grip_by_push = slides ? body.friction * inverse : zero;
    const lanes grip_by_slip = slides ? -coulomb * inverse * inverse : zero;
"""
    )
