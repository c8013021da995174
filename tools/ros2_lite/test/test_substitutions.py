import os
import sys
from pathlib import Path

import pytest
from ros2_lite import substitutions as s
from ros2_lite.context import LaunchContext


@pytest.fixture
def context():
    context = LaunchContext()
    context.launch_configurations["yes"] = "True"
    return context


@pytest.mark.parametrize(
    ("substitution", "text"),
    [
        (s.TextSubstitution(text="plain"), "plain"),
        (s.LaunchConfiguration("yes"), "True"),
        (s.LaunchConfiguration(["y", "es"]), "True"),
        (s.LaunchConfiguration("absent", default=["a", s.TextSubstitution(text="b")]), "ab"),
        (s.EnvironmentVariable("ABSENT_VARIABLE", default_value="x"), "x"),
        (s.PathJoinSubstitution(["/a", ["b", s.TextSubstitution(text="c")], Path("d")]), "/a/bc/d"),
        (s.PythonExpression(["2 * ", "21"]), "42"),
        (s.PythonExpression("floor(pi)"), "3"),
        (
            s.PythonExpression(["'", s.LaunchConfiguration("yes"), "' == 'True' and os.sep == '/'"], ["os"]),
            "True",
        ),
        (s.FindExecutable(name="sh"), "/usr/bin/sh"),
        (s.Command("echo a 'b c'"), "a b c\n"),
        (s.Command(["sh -c 'echo out; echo err >&2'"], on_stderr="capture"), "out\nerr\n"),
        (s.Command("sh -c 'echo out; echo err >&2'", on_stderr="ignore"), "out\n"),
        (s.EqualsSubstitution(s.LaunchConfiguration("yes"), "true"), "true"),
        (s.EqualsSubstitution("1.0", "1"), "true"),
        (s.EqualsSubstitution("a", "A"), "false"),
        (s.NotEqualsSubstitution("a", "A"), "true"),
        (s.NotSubstitution(s.LaunchConfiguration("yes")), "false"),
        (s.AndSubstitution("true", "0"), "false"),
        (s.OrSubstitution("false", "1"), "true"),
    ],
)
def test_a_substitution_stands_for_its_text(monkeypatch, context, substitution, text):
    monkeypatch.setitem(os.environ, "PATH", "/usr/bin:/bin")
    assert substitution.perform(context) == text


@pytest.mark.parametrize(
    ("substitution", "reason"),
    [
        (s.LaunchConfiguration("absent"), "launch configuration 'absent' does not exist"),
        (s.EnvironmentVariable("ABSENT_VARIABLE"), "environment variable 'ABSENT_VARIABLE' does not exist"),
        (s.FindExecutable(name="no_such_program"), "executable 'no_such_program' not found"),
        (s.Command("sh -c 'exit 3'"), "exit code 3"),
        (s.Command("sh -c 'echo err >&2'"), "standard error: err"),
        (s.ThisLaunchFileDir(), "only while a file is read"),
    ],
)
def test_a_substitution_that_stands_for_nothing_is_an_error(context, substitution, reason):
    with pytest.raises(s.SubstitutionError, match=reason):
        substitution.perform(context)


def test_text_is_refused_where_it_is_no_text(context):
    with pytest.raises(TypeError, match="got int: 3"):
        s.perform(context, ["a", 3])  # type: ignore[list-item]


def test_packages_are_found_along_the_prefix_path_and_then_beside_the_interpreter(
    monkeypatch, tmp_path, context
):
    marker = tmp_path / "share/ament_index/resource_index/packages/demo"
    marker.parent.mkdir(parents=True)
    marker.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert s.FindPackagePrefix("demo").perform(context) == str(tmp_path)
    assert s.FindPackageShare(["de", "mo"]).perform(context) == f"{tmp_path}/share/demo"
    with pytest.raises(
        LookupError, match=rf"'no_such_package' not found, searching: /nowhere, .*{sys.prefix}"
    ):
        s.FindPackageShare("no_such_package").perform(context)


def test_substitutions_are_described_without_performing_them():
    path = s.PathJoinSubstitution([s.FindPackageShare("demo"), "x.yaml"])
    assert s.describe([path]) == "PathJoin(FindPackageShare('demo'), 'x.yaml')"
    assert s.describe(s.PythonExpression(["1 + ", s.LaunchConfiguration("x")])) == (
        "PythonExpr('1 + ' + LaunchConfiguration('x'))"
    )
