import pytest

from rewarped_sim.registry import ConfigError
from rewarped_sim.reproduction.document import write_between_markers

TEXT = (
    "# Title\n\n<!-- begin cpu -->\nold\n<!-- end cpu -->\n\nprose <!-- begin paper --><!-- end paper -->\n"
)


def test_only_what_stands_between_the_markers_changes(tmp_path):
    path = tmp_path / "results.md"
    path.write_text(TEXT)
    for _ in range(2):  # and again without growing
        write_between_markers(path, "cpu", "| new |")
    assert path.read_text() == TEXT.replace("\nold\n", "\n\n| new |\n\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the line '<!-- begin cpu -->' once, found it 0 times"),
        (TEXT + TEXT, "found it 2 times"),
        ("<!-- begin cpu -->", "'<!-- end cpu -->' once, found it 0 times"),
        ("<!-- end cpu --><!-- begin cpu -->", "stands before"),
    ],
)
def test_a_document_without_its_markers_is_refused_and_left_alone(tmp_path, text, message):
    path = tmp_path / "results.md"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        write_between_markers(path, "cpu", "new")
    assert path.read_text() == text


def test_a_missing_document_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"results\.md cannot be read"):
        write_between_markers(tmp_path / "results.md", "cpu", "new")
