"""A robot as its file describes it, MJCF or URDF: elements that know their line, and the defaults of their classes."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement, TreeBuilder
from xml.parsers import expat

IGNORABLE = {
    "actuator": "a motor or servo of another kind than torque on a joint or position of a joint",
    "equality": "a constraint between bodies, joints or tendons",
    "flag": "a switch that turns a part of MuJoCo's physics off",
    "flex": "a deformable body",
    "fluid": "the drag of air or water",
    "frictionloss": "dry friction in a joint",
    "gravcomp": "a body without weight",
    "mesh": "a mesh that touches",
    "mimic": "a joint that follows another",
    "pair": "a contact between two shapes that is set apart from all others",
    "shape": "a touching shape that is not a sphere, capsule or box",
    "tendon": "a tendon",
}
"""What may be left out of a model on request, and what it is."""

MAX_DEPTH = 400
"""Elements within each other; a chain of more bodies is not read."""


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

    Raises ValueError, with line, for a file that is not XML, whose root is neither <mujoco> nor <robot>, or that
    includes what is not there or itself.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.root = Element("")
        self._lines: dict[Element, str] = {}
        self._parents: dict[Element, Element] = {}
        self.root = self._parse(self.path, self.path.read_bytes())
        kinds = {"mujoco": "mjcf", "robot": "urdf"}
        if self.root.tag not in kinds:
            raise ValueError(
                f"{self.where(self.root)}: expected <mujoco> (MJCF) or <robot> (URDF), got <{self.root.tag}>"
            )
        self.kind = kinds[self.root.tag]
        """`mjcf` or `urdf`."""
        if self.kind == "mjcf":
            self._expand_includes(self.root, (self.path,))
            self._join_defaults()
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
        return self.defaults(element, str(element.tag)) | element.attrib

    def defaults(self, element: Element, tag: str) -> dict[str, str]:
        """What the default class of an MJCF element gives to elements with this tag."""
        name, above = element.get("class"), self.parent(element)
        while name is None and above is not None:
            name, above = above.get("childclass"), self.parent(above)
        return self._classes.get(name or "main", self._classes["main"]).get(tag, {})

    def has_class(self, name: str) -> bool:
        """Whether there is a default class of this name."""
        return name in self._classes

    def numbers(self, element: Element, name: str, default: str) -> tuple[float, ...]:
        """An attribute's numbers, given or from a default class; raises ValueError, with line, for what is none."""
        text = self.attributes(element).get(name, default)
        try:
            values = tuple(float(word) for word in text.split())
        except ValueError:
            values = ()
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(
                f"{self.where(element)}: {name} of {element.tag}: expected finite numbers, got {text!r}"
            )
        return values

    def remove(self, element: Element) -> None:
        """Cut an element out."""
        self._parents[element].remove(element)

    def _parse(self, path: Path, text: bytes) -> Element:
        builder, parser = TreeBuilder(), expat.ParserCreate()
        depth = 0

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal depth
            depth += 1
            where = f"{path}:{parser.CurrentLineNumber}"
            if depth > MAX_DEPTH:
                raise ValueError(f"{where}: more than {MAX_DEPTH} elements within each other")
            self._lines[builder.start(tag, attributes)] = where

        def end(tag: str) -> None:
            nonlocal depth
            depth -= 1
            builder.end(tag)

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        try:
            parser.Parse(text, True)
            return builder.close()
        except (expat.ExpatError, ParseError) as error:
            raise ValueError(f"{path}: not XML: {error}") from error

    def _expand_includes(self, element: Element, above: tuple[Path, ...]) -> None:
        """Put the content of included files, named relative to the main one, in the places of <include>.

        above: the file that the element is from, and those through which it came.
        """
        for child in list(element):
            if child.tag != "include":
                self._expand_includes(child, above)
                continue
            path = self.path.parent / child.get("file", "")
            if path in above:
                raise ValueError(f"{self.where(child)}: include: {path} includes itself")
            try:
                text = path.read_bytes()
            except OSError as error:
                raise ValueError(f"{self.where(child)}: include: {error}") from error
            content = self._parse(path, text)
            self._expand_includes(content, (*above, path))
            index = list(element).index(child)
            element[index : index + 1] = list(content)

    def _join_defaults(self) -> None:
        """One section of defaults, as MuJoCo reads several; what is for all elements has the name `main`, too.

        Other readers take a section of that name for one which only those that name it follow.
        """
        first = self.root.find("default")
        if first is None:
            return
        for section in self.root.findall("default"):
            where, name = self.where(section), section.get("class", "main")
            if name != "main":
                raise ValueError(f"{where}: the outermost default class must be 'main', got {name!r}")
            if section is first:
                continue
            if first.find("default") is not None and any(child.tag != "default" for child in section):
                raise ValueError(f"{where}: defaults for all elements must come before those of classes")
            first.extend(section)
            self.root.remove(section)
        first.attrib.pop("class", None)
        given: dict[str, Element] = {}
        for child in first.findall("*"):
            tag = str(child.tag)
            if tag in given and tag != "default":
                given[tag].attrib |= child.attrib
                first.remove(child)
            given.setdefault(tag, child)
        SubElement(first, "default", {"class": "main"})

    def _read_defaults(self, default: Element, inherited: dict[str, dict[str, str]]) -> None:
        name = default.get("class", "main")
        own = inherited
        for child in default:
            if child.tag != "default":
                own = own | {str(child.tag): own.get(str(child.tag), {}) | child.attrib}
        self._classes[name] = own
        for child in default.findall("default"):
            self._read_defaults(child, own)
