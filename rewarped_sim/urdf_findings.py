"""What the engine, or the reader of files, cannot do of a URDF file; and where the file contradicts itself."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from rewarped_sim.robot_file import Finding, RobotFile

_SIZES = {"sphere": {"radius": 1}, "capsule": {"radius": 1, "length": 1}, "box": {"size": 3}}
"""What says how large a touching shape is, and in how many numbers."""
_JOINTS = ("floating", "revolute", "continuous", "prismatic", "fixed", "planar")


def urdf_findings(file: RobotFile) -> Iterator[Finding]:
    """All of it; raises ValueError, with line, for numbers that are none."""
    for element in file.root.iter():
        if str(element.tag).startswith("xacro:") or any("${" in text for text in element.attrib.values()):
            what = f"{element.tag}, which is for xacro: let it make a URDF file of this one,"
            yield Finding("", f"{file.where(element)}: {what}")
            return
    yield from _tree_findings(file)
    for joint in file.root.findall("joint"):
        yield from _joint_findings(file, joint)
    for link in file.root.findall("link"):
        for collision in link.findall("collision"):
            yield from _collision_findings(file, link, collision)


def _tree_findings(file: RobotFile) -> Iterator[Finding]:
    """Links and joints that make no single tree."""
    links = file.root.findall("link")
    for elements in (links, file.root.findall("joint")):
        names: set[str] = set()
        for element in elements:
            name = element.get("name", "")
            if not name or name in names:
                what = (
                    f"second {element.tag} of the name {name!r}" if name else f"{element.tag} without a name"
                )
                yield Finding("", f"{file.where(element)}: {what}")
            names.add(name)
    known = {link.get("name", "") for link in links}
    parents: dict[str, str] = {}
    for joint in file.root.findall("joint"):
        where, ends = f"{file.where(joint)}: joint {joint.get('name')!r}", []
        for tag in ("parent", "child"):
            end = joint.find(tag)
            ends.append(end.get("link", "") if end is not None else "")
            if ends[-1] not in known:
                yield Finding("", f"{where} with {tag} {ends[-1]!r}, which is no link,")
        parent, child = ends
        above = parent
        while above != child and above in parents:
            above = parents[above]
        if child in parents or above == child:
            yield Finding("", f"{where} closes a loop at link {child!r}, which")
        else:
            parents[child] = parent
    roots = [link for link in links if link.get("name", "") not in parents]
    if not links:
        yield Finding("", f"{file.where(file.root)}: robot without links")
    for link in roots[1:]:
        roots_text = f"{roots[0].get('name')!r} and {link.get('name')!r}"
        yield Finding("", f"{file.where(link)}: robot of several roots, {roots_text},")


def _joint_findings(file: RobotFile, joint: Element) -> Iterator[Finding]:
    name, kind = joint.get("name"), joint.get("type")
    if kind == "planar":
        yield Finding("", f"{file.where(joint)}: planar joint {name!r}")
    elif kind not in _JOINTS:
        yield Finding("", f"{file.where(joint)}: type {kind!r} of joint {name!r}")
    if joint.find("mimic") is not None:
        yield Finding("mimic", f"{file.where(joint)}: mimic of joint {name!r}")
    dynamics = joint.find("dynamics")
    if kind != "fixed" and dynamics is not None and file.numbers(dynamics, "friction", "0")[0] != 0.0:
        yield Finding("frictionloss", f"{file.where(joint)}: friction of joint {name!r}")


def _collision_findings(file: RobotFile, link: Element, collision: Element) -> Iterator[Finding]:
    name = link.get("name")
    shapes = collision.findall("geometry/*")
    if len(shapes) != 1:
        yield Finding("", f"{file.where(collision)}: collision of link {name!r} of {len(shapes)} shapes")
    for shape in shapes:
        text = f"{file.where(shape)}: touching {shape.tag} of link {name!r}"
        if shape.tag == "mesh":
            yield Finding("mesh", text, collision)
        elif shape.tag not in _SIZES:
            yield Finding("shape", text)
        else:
            for key, count in _SIZES[shape.tag].items():
                if key == "length" and key not in shape.attrib and "height" in shape.attrib:
                    key = "height"  # as other simulators have it
                sizes = file.numbers(shape, key, "0")
                if len(sizes) != count or not min(sizes) > 0.0:
                    yield Finding("", f"{text} with {key} {shape.get(key, '')!r}")
