"""A robot as its file describes it, MJCF or URDF: elements that know their line, and what the engine cannot do."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

IGNORABLE = {
    "actuator": "a motor or servo of another kind than torque on a joint or position of a joint",
    "equality": "a constraint between bodies, joints or tendons",
    "flex": "a deformable body",
    "frictionloss": "dry friction in a joint",
    "gravcomp": "a body without weight",
    "mesh": "a mesh that touches",
    "mimic": "a joint that follows another",
    "shape": "a touching shape that is not a sphere, capsule or box",
    "tendon": "a tendon",
}
"""What may be left out of a model on request, and what it is."""

_MJCF_SHAPES = ("sphere", "capsule", "box", "plane")
_URDF_SHAPES = ("sphere", "capsule", "box")


class UnsupportedModelError(ValueError):
    """A file asks for what the engine cannot do; the message lists all of it, with lines."""


@dataclass(frozen=True)
class Finding:
    """Something in a file that the engine cannot do."""

    feature: str
    """One of `IGNORABLE` where the model makes sense without it; otherwise empty."""
    text: str
    """Where it is, and what."""
    element: Element | None = None
    """What to cut out where the feature is left out; None: nothing reads it."""


class RobotFile:
    """A parsed MJCF or URDF file, with the files that it includes.

    Raises ValueError, with line, for a file that is not XML or whose root is neither <mujoco> nor <robot>.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.root = Element("")
        self._lines: dict[Element, str] = {}
        self._parents: dict[Element, Element] = {}
        self.root = self._parse(self.path)
        kinds = {"mujoco": "mjcf", "robot": "urdf"}
        if self.root.tag not in kinds:
            raise ValueError(
                f"{self.where(self.root)}: expected <mujoco> (MJCF) or <robot> (URDF), got <{self.root.tag}>"
            )
        self.kind = kinds[self.root.tag]
        """`mjcf` or `urdf`."""
        self._expand_includes(self.root)
        for parent in self.root.iter():
            self._parents |= dict.fromkeys(parent, parent)
        self._classes: dict[str, dict[str, dict[str, str]]] = {"main": {}}
        for default in self.root.findall("default"):
            self._read_defaults(default, {})

    def where(self, element: Element) -> str:
        """File and line at which an element begins."""
        return self._lines.get(element, str(self.path))

    def parent(self, element: Element) -> Element | None:
        """The element around it."""
        return self._parents.get(element)

    def named(self, tag: str, name: str) -> Element | None:
        """The first element with this tag and name."""
        return next((found for found in self.root.iter(tag) if found.get("name") == name), None)

    def attributes(self, element: Element) -> dict[str, str]:
        """An element's attributes, those that MJCF's default classes give it included."""
        name, above = element.get("class"), self.parent(element)
        while name is None and above is not None:
            name, above = above.get("childclass"), self.parent(above)
        given = self._classes.get(name or "main", self._classes["main"])
        return given.get(str(element.tag), {}) | element.attrib

    def findings(self) -> list[Finding]:
        """All that the engine cannot do, in the order of the file."""
        return list(_mjcf_findings(self) if self.kind == "mjcf" else _urdf_findings(self))

    def remove(self, element: Element) -> None:
        """Cut an element out."""
        self._parents[element].remove(element)

    def _parse(self, path: Path) -> Element:
        builder, parser = TreeBuilder(), expat.ParserCreate()

        def start(tag: str, attributes: dict[str, str]) -> None:
            self._lines[builder.start(tag, attributes)] = f"{path}:{parser.CurrentLineNumber}"

        parser.StartElementHandler = start
        parser.EndElementHandler = builder.end
        try:
            parser.Parse(path.read_bytes(), True)
            return builder.close()
        except (expat.ExpatError, ParseError) as error:
            raise ValueError(f"{path}: not XML: {error}") from error

    def _expand_includes(self, element: Element) -> None:
        """Put the content of included files, named relative to the main one, in the places of <include>."""
        for child in list(element):
            if child.tag == "include":
                content = list(self._parse(self.path.parent / child.get("file", "")))
                index = list(element).index(child)
                element[index : index + 1] = content
                for included in content:
                    self._expand_includes(included)
            else:
                self._expand_includes(child)

    def _read_defaults(self, default: Element, inherited: dict[str, dict[str, str]]) -> None:
        name = default.get("class", "main")
        own = inherited | self._classes.get(name, {})
        for child in default:
            if child.tag != "default":
                own = own | {str(child.tag): own.get(str(child.tag), {}) | child.attrib}
        self._classes[name] = own
        for child in default.findall("default"):
            self._read_defaults(child, own)


def _mjcf_findings(file: RobotFile) -> Iterator[Finding]:
    for element in file.root.iter():
        around = file.parent(element)
        above = around.tag if around is not None else ""
        if above in ("equality", "tendon"):
            yield _finding(file, element, str(above), f"{element.tag} {above}")
        elif above == "deformable" or element.tag in ("composite", "flexcomp"):
            yield _finding(file, element, "flex", str(element.tag), element)
        elif above == "actuator":
            yield from _actuator_findings(file, element)
        elif element.tag == "geom" and above != "default":
            yield from _geom_findings(file, element)
        elif element.tag == "body":
            yield from _body_findings(file, element)


def _actuator_findings(file: RobotFile, element: Element) -> Iterator[Finding]:
    given = file.attributes(element)
    if element.tag not in ("motor", "position") or "joint" not in given:
        yield _finding(file, element, "actuator", f"{element.tag} actuator", element)
    elif element.tag == "position" and _numbers(given.get("gear", "1"))[0] != 1.0:
        yield _finding(file, element, "actuator", f"gear {given['gear']} of position actuator", element)


def _geom_findings(file: RobotFile, element: Element) -> Iterator[Finding]:
    given = file.attributes(element)
    kind = "mesh" if "mesh" in given else given.get("type", "sphere")
    body = file.parent(element)
    if kind == "mesh" and body is not None and body.tag == "body" and body.find("inertial") is None:
        yield _finding(file, element, "", "mass from a mesh, in a body without <inertial>: geom")
    elif given.get("contype", "1") == given.get("conaffinity", "1") == "0":
        return
    elif kind == "mesh":
        yield _finding(file, element, "mesh", "touching mesh geom")
    elif kind not in _MJCF_SHAPES:
        yield _finding(file, element, "shape", f"touching {kind} geom")


def _body_findings(file: RobotFile, body: Element) -> Iterator[Finding]:
    if float(body.get("gravcomp", "0")) != 0.0:
        yield _finding(file, body, "gravcomp", "gravcomp of body")
    if body.get("mocap") == "true":
        yield _finding(file, body, "", "mocap body")
    joints = body.findall("joint") + body.findall("freejoint")
    given = [file.attributes(joint) for joint in joints]
    kinds = [
        "free" if j.tag == "freejoint" else g.get("type", "hinge") for j, g in zip(joints, given, strict=True)
    ]
    for joint, attributes, kind in zip(joints, given, kinds, strict=True):
        if float(attributes.get("frictionloss", "0")) != 0.0:
            yield _finding(file, joint, "frictionloss", "frictionloss of joint")
        if "springdamper" in attributes:
            yield _finding(file, joint, "", "springdamper of joint")
        if kind == "ball" and "range" in attributes:
            yield _finding(file, joint, "", "limit of ball joint")
    if len(joints) < 2:
        return
    if not {"hinge", "slide"} >= set(kinds):
        yield _finding(file, body, "", "free or ball joint beside other joints in body")
    elif kinds != sorted(kinds, reverse=True):
        yield _finding(file, body, "", "slide after a hinge in body")
    if len({_numbers(attributes.get("pos", "0 0 0")) for attributes in given}) > 1:
        yield _finding(file, body, "", "joints with different anchors in body")


def _urdf_findings(file: RobotFile) -> Iterator[Finding]:
    children: set[str] = set()
    for joint in file.root.findall("joint"):
        if joint.get("type") == "planar":
            yield _finding(file, joint, "", "planar joint")
        if joint.find("mimic") is not None:
            yield _finding(file, joint, "mimic", "mimic of joint")
        dynamics = joint.find("dynamics")
        if dynamics is not None and float(dynamics.get("friction", "0")) != 0.0:
            yield _finding(file, joint, "frictionloss", "friction of joint")
        child = joint.find("child")
        link = child.get("link", "") if child is not None else ""
        if link in children:
            yield Finding(
                "", f"{file.where(joint)}: joint {joint.get('name')!r} closes a loop at link {link!r}"
            )
        children.add(link)
    for link in file.root.findall("link"):
        for collision in link.findall("collision"):
            for shape in collision.findall("geometry/*"):
                text = f"{file.where(shape)}: touching {shape.tag} of link {link.get('name')!r}"
                if shape.tag == "mesh":
                    yield Finding("mesh", text, collision)
                elif shape.tag not in _URDF_SHAPES:
                    yield Finding("shape", text)


def _finding(
    file: RobotFile, element: Element, feature: str, what: str, remove: Element | None = None
) -> Finding:
    name = element.get("name")
    return Finding(feature, f"{file.where(element)}: {what}" + (f" {name!r}" if name else ""), remove)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split())
