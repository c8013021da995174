"""A user's own robot, MJCF or URDF, as an articulated model. Needs the extra `import`: newton reads the files.

What the engine cannot do is refused, by name and line; docs/importer.md lists it. The gains of contact and limits are
the caller's, since the files mean other laws by theirs.
"""

from collections.abc import Collection
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rewarped_sim.engine.articulation.model import ArticulationModel, ContactMaterial
from rewarped_sim.engine.kinematics import Vec3
from rewarped_sim.mjcf_findings import mjcf_findings
from rewarped_sim.newton_model import NewtonModel
from rewarped_sim.robot_file import IGNORABLE, RobotFile, UnsupportedModelError
from rewarped_sim.urdf_findings import urdf_findings

if TYPE_CHECKING:
    import newton


def import_model(
    path: str | Path,
    *,
    control_dt_s: float = 1.0 / 60.0,
    num_substeps: int = 16,
    floating: bool | None = None,
    ground: bool = False,
    contact: ContactMaterial | None = None,
    contact_law: str = "regularized",
    self_collision: bool = False,
    limit_stiffness: float = 1.0e3,
    limit_damping: float = 10.0,
    ignore: Collection[str] = (),
) -> ArticulationModel:
    """The model that an MJCF or URDF file describes.

    Args:
        path: of the file.
        control_dt_s: duration of a control step [s].
        num_substeps: in a control step.
        floating: whether the root moves freely; None: as the file says, which for URDF is fixed.
        ground: whether to add the plane z = 0 where the file has none.
        contact: gains of all touching shapes and the ground; friction is that of the file where it is MJCF. None: the
            defaults of `ContactMaterial`.
        contact_law: one of `CONTACT_LAWS`.
        self_collision: whether bodies touch each other where the file lets them, parents and children excepted. What
            stands in the world, and carries nothing that moves, is touched in any case.
        limit_stiffness: of all limits [N m/rad or N/m].
        limit_damping: of all limits [N m s/rad or N s/m].
        ignore: features to leave out instead of refusing the file, see `IGNORABLE`.

    Raises:
        ImportError: newton is not installed.
        UnsupportedModelError: the file asks for what the engine cannot do.
        ValueError: the file is neither, its numbers or limits are none, or `ignore` names what is not known.
    """
    for feature in ignore:
        if feature not in IGNORABLE:
            raise ValueError(f"ignore: unknown feature {feature!r}; known: {sorted(IGNORABLE)}")
    file = RobotFile(path)
    _refuse(file, ignore)
    builder = _built(file, floating)
    material = contact or ContactMaterial()
    imported = NewtonModel(file, builder, material, limit_stiffness, limit_damping)
    return ArticulationModel(
        bodies=imported.bodies,
        control_dt_s=control_dt_s,
        num_substeps=num_substeps,
        gravity=_gravity(file),
        ground=imported.ground or (material if ground else None),
        contact_law=contact_law,
        contact_pairs=imported.contact_pairs(self_collision),
    )


def _refuse(file: RobotFile, ignore: Collection[str]) -> None:
    """Raise for all that is neither supported nor ignored; cut out what is ignored."""
    findings = list((mjcf_findings if file.kind == "mjcf" else urdf_findings)(file))
    refused = [finding for finding in findings if finding.feature not in ignore]
    if refused:
        lines = "\n".join(f"  {finding.text} is not supported" for finding in refused)
        features = sorted({finding.feature for finding in refused} - {""})
        hint = f"\nto leave out what is not essential, pass ignore={features}" if features else ""
        raise UnsupportedModelError(f"{file.path} cannot be imported:\n{lines}{hint}")
    for finding in findings:
        if finding.element is not None:
            file.remove(finding.element)


def _built(file: RobotFile, floating: bool | None) -> "newton.ModelBuilder":
    """What newton makes of the file. Visuals, meshes and constraints stay out."""
    try:
        import newton
    except ImportError as error:
        raise ImportError(
            "importing MJCF and URDF needs newton, which is not installed: pip install 'rewarped_sim[import]'"
        ) from error
    builder = newton.ModelBuilder()
    try:
        if file.kind == "mjcf":
            _name_bodies(file)
            text = ElementTree.tostring(file.root, encoding="unicode")
            builder.add_mjcf(
                text, floating=floating, parse_meshes=False, parse_visuals=False, parse_sites=False,
                skip_equality_constraints=True,
            )  # fmt: skip
        else:
            _prepare_urdf(file)
            builder.add_urdf(ElementTree.tostring(file.root, encoding="unicode"), floating=floating)
    except Exception as error:  # of any kind, and none names the file
        raise UnsupportedModelError(
            f"{file.path}: newton cannot read it: {type(error).__name__}: {error}"
        ) from error
    return builder


def _name_bodies(file: RobotFile) -> None:
    """Give a name to every body that has none, since a body with several joints is found again by it."""
    bodies = list(file.root.iter("body"))
    taken = {body.get("name") for body in bodies}
    numbers = count()
    for body in bodies:
        if not body.get("name"):
            body.set("name", next(name for number in numbers if (name := f"body_{number}") not in taken))


def _prepare_urdf(file: RobotFile) -> None:
    """Leave links and joints alone, without what is only seen, with the limits and lengths that the format means."""
    file.root.attrib.pop("xmlns", None)
    for element in list(file.root):
        if element.tag not in ("link", "joint"):
            file.remove(element)
    for visual in list(file.root.iter("visual")):
        file.remove(visual)
    for capsule in file.root.iter("capsule"):
        capsule.set("height", capsule.get("length", capsule.get("height", "")))  # what newton calls it
    for joint in file.root.findall("joint"):
        limit = joint.find("limit")
        if limit is None:
            continue
        given = {"lower", "upper"} & set(limit.attrib)
        if joint.get("type") == "continuous":
            for name in given:
                del limit.attrib[name]
        elif given:
            for name in {"lower", "upper"} - given:
                limit.set(name, "0")


def _gravity(file: RobotFile) -> Vec3:
    """MJCF's own; z is up in both formats."""
    gravity = "0 0 -9.81"
    for option in file.root.findall("option"):
        gravity = option.get("gravity", gravity)
        if any(flag.get("gravity") == "disable" for flag in option.findall("flag")):
            return (0.0, 0.0, 0.0)
    x, y, z = (float(word) for word in gravity.split())
    return (x, y, z)
