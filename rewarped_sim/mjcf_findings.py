"""What the engine, or the reader of files, cannot do of an MJCF file."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from rewarped_sim.robot_file import Finding, RobotFile

_SIZES = {"sphere": 1, "capsule": 2, "box": 3, "plane": 0, "cylinder": 2, "ellipsoid": 3}
"""Numbers in the size of each shape that must be there and positive."""
_ORIENTATIONS = ("quat", "axisangle", "euler", "xyaxes", "zaxis", "fromto")
_TOUCHING_SHAPES = ("sphere", "capsule", "box", "plane")
_JOINTS = ("free", "ball", "hinge", "slide")
_PARTS_OF_BODIES = ("body", "frame", "geom", "joint", "freejoint", "inertial", "site", "camera", "light")
_ACTUATORS = (
    "general", "motor", "velocity", "intvelocity", "damper", "cylinder", "muscle", "adhesion", "plugin",
)  # fmt: skip
"""Whose defaults a position actuator of the same class has as well."""
_SWITCHES = ("constraint", "limit", "passive", "spring", "damper", "actuation")
"""Parts of the physics that a file can switch off, besides gravity and contact."""


def mjcf_findings(file: RobotFile) -> Iterator[Finding]:
    """All of it, in the order of the file; raises ValueError, with line, for numbers that are none."""
    driven: set[str] = set()
    for element in file.root.iter():
        around = file.parent(element)
        above = str(around.tag) if around is not None else ""
        for key in ("class", "childclass"):
            if element.tag != "default" and key in element.attrib and not file.has_class(element.attrib[key]):
                yield _finding(file, element, "", f"unknown {key} {element.attrib[key]!r} of {element.tag}")
        if above in ("equality", "tendon"):
            yield _finding(file, element, above, f"{element.tag} {above}")
        elif above == "deformable" or element.tag in ("composite", "flexcomp"):
            yield _finding(file, element, "flex", str(element.tag), element)
        elif above == "actuator":
            yield from _actuator_findings(file, element, driven)
        elif above == "contact" and element.tag == "pair":
            yield _finding(file, element, "pair", "contact pair", element)
        elif above in ("worldbody", "body", "frame"):
            yield from _part_findings(file, element, above)
        elif element.tag == "compiler" and element.get("coordinate", "local") != "local":
            yield _finding(file, element, "", f"coordinate {element.get('coordinate')!r} of compiler")
        elif element.tag == "option":
            for name in ("density", "viscosity"):
                if file.numbers(element, name, "0")[0] != 0.0:
                    yield _finding(file, element, "fluid", f"{name} of option")
        elif element.tag == "flag":
            for name in _SWITCHES:
                if element.get(name) == "disable":
                    yield _finding(file, element, "flag", f"physics without {name}")


def _part_findings(file: RobotFile, element: Element, above: str) -> Iterator[Finding]:
    """Of what may lie in a body."""
    if element.tag not in _PARTS_OF_BODIES:
        yield _finding(file, element, "", f"{element.tag} in {above}")
    elif above == "frame" and element.tag in ("joint", "freejoint", "inertial"):
        yield _finding(file, element, "", f"{element.tag} in a frame")
    elif element.tag == "geom":
        yield from _geom_findings(file, element)
    elif element.tag == "body":
        yield from _body_findings(file, element)


def _actuator_findings(file: RobotFile, element: Element, driven: set[str]) -> Iterator[Finding]:
    """Of one actuator; driven: joints of the position actuators before it."""
    given = file.attributes(element)
    what = ""
    if element.tag not in ("motor", "position") or "joint" not in given:
        what = f"{element.tag} actuator"
    elif element.tag == "position":
        inherited = [file.defaults(element, tag) for tag in _ACTUATORS]
        joint = file.named("joint", given["joint"])
        gears = [kind["gear"] for kind in (given, *inherited) if "gear" in kind]
        gears = [element.get("gear", "1")] if "gear" in element.attrib else gears
        gear = next((gear for gear in gears if gear.split()[:1] not in (["1"], ["1.0"])), "")
        unread = {"dampratio", "timeconst"} & set(given)
        unread |= {"gainprm", "biasprm", "dyntype"} & {name for kind in inherited for name in kind}
        if gear:
            what = f"gear {gear} of position actuator"
        elif unread:
            what = f"{min(unread)} of position actuator"
        elif joint is None or file.attributes(joint).get("type", "hinge") not in ("hinge", "slide"):
            what = f"joint {given['joint']!r}, no hinge or slide, of position actuator"
        elif given["joint"] in driven:
            what = f"second drive of joint {given['joint']!r} by position actuator"
        driven.add(given["joint"])
    if what:
        yield _finding(file, element, "actuator", what, element)


def _geom_findings(file: RobotFile, element: Element) -> Iterator[Finding]:
    given = file.attributes(element)
    kind = "mesh" if "mesh" in given else given.get("type", "sphere")
    sizes = file.numbers(element, "size", "0")
    sizes += tuple(
        float(word) for word in file.defaults(element, "geom").get("size", "").split()[len(sizes) :]
    )
    count = min(_SIZES.get(kind, 0), 1) if "fromto" in given else _SIZES.get(kind, 0)
    if len(sizes) < count or not all(size > 0.0 for size in sizes[:count]):
        yield _finding(file, element, "", f"size {given.get('size', '')!r} of {kind} geom")
    turns = [name for name in _ORIENTATIONS if name in given]
    if len(turns) > 1:
        yield _finding(file, element, "", f"{' beside '.join(turns)} of {kind} geom")
    if _gives_mass(file, element, given):
        if kind == "mesh":
            yield _finding(file, element, "", "mass from a mesh, in a body without <inertial>: geom")
            return
        if given.get("shellinertia") == "true":
            yield _finding(file, element, "", "shellinertia of geom")
    if given.get("contype", "1") == given.get("conaffinity", "1") == "0":
        return
    if kind == "mesh":
        yield _finding(file, element, "mesh", "touching mesh geom")
    elif kind not in _TOUCHING_SHAPES:
        yield _finding(file, element, "shape", f"touching {kind} geom")


def _gives_mass(file: RobotFile, geom: Element, given: dict[str, str]) -> bool:
    """Whether a body has its mass from this geom, among others."""
    owner = file.parent(geom)
    while owner is not None and owner.tag == "frame":
        owner = file.parent(owner)
    if owner is None or owner.tag != "body":
        return False
    always = any(compiler.get("inertiafromgeom") == "true" for compiler in file.root.iter("compiler"))
    if owner.find("inertial") is not None and not always:
        return False
    return file.numbers(geom, "mass" if "mass" in given else "density", "1000")[0] != 0.0


def _body_findings(file: RobotFile, body: Element) -> Iterator[Finding]:
    if file.numbers(body, "gravcomp", "0")[0] != 0.0:
        yield _finding(file, body, "gravcomp", "gravcomp of body")
    if body.get("mocap") == "true":
        yield _finding(file, body, "", "mocap body")
    inertials = body.findall("inertial")
    if len(inertials) > 1:
        yield _finding(file, inertials[1], "", "second inertial of a body")
    for inertial in inertials:
        if (mass := file.numbers(inertial, "mass", "0")[0]) <= 0.0:
            yield _finding(file, inertial, "", f"mass {mass:g} of inertial")
    joints = body.findall("joint") + body.findall("freejoint")
    kinds = [
        "free" if joint.tag == "freejoint" else file.attributes(joint).get("type", "hinge")
        for joint in joints
    ]
    for joint, kind in zip(joints, kinds, strict=True):
        yield from _joint_findings(file, joint, kind)
    if len(joints) < 2:
        return
    if not {"hinge", "slide"} >= set(kinds):
        yield _finding(file, body, "", "free or ball joint beside other joints in body")
    elif kinds != sorted(kinds, reverse=True):
        yield _finding(file, body, "", "slide after a hinge in body")
    if len({file.numbers(joint, "pos", "0 0 0") for joint in joints}) > 1:
        yield _finding(file, body, "", "joints with different anchors in body")


def _joint_findings(file: RobotFile, joint: Element, kind: str) -> Iterator[Finding]:
    given = file.attributes(joint)
    if kind not in _JOINTS:
        yield _finding(file, joint, "", f"type {kind!r} of joint")
    if file.numbers(joint, "frictionloss", "0")[0] != 0.0:
        yield _finding(file, joint, "frictionloss", "frictionloss of joint")
    if "springdamper" in given:
        yield _finding(file, joint, "", "springdamper of joint")
    if kind == "ball" and "range" in given and given.get("limited", "auto") != "false":
        yield _finding(file, joint, "", "limit of ball joint")
    for name in ("stiffness", "damping"):
        values = file.numbers(joint, name, "0")
        if any(values[1:]):
            yield _finding(file, joint, "", f"{name} that varies of joint")
        elif name == "stiffness" and kind == "free" and name in joint.attrib and values[0] != 0.0:
            # Not where a class gives it to all joints: published robots have it so, and none means the root.
            yield _finding(file, joint, "", "spring of free joint")


def _finding(
    file: RobotFile, element: Element, feature: str, what: str, remove: Element | None = None
) -> Finding:
    name = element.get("name")
    return Finding(feature, f"{file.where(element)}: {what}" + (f" {name!r}" if name else ""), remove)
