import json

import pytest
import yaml

# Prints its words and, because parameter files are gone after the launch, their content.
NODE = """\
#!/usr/bin/env python3
import json, pathlib, sys
words = sys.argv[1:]
files = [pathlib.Path(b).read_text() for a, b in zip(words, words[1:]) if a == "--params-file"]
print("NODE", json.dumps([words, files]), flush=True)
"""


@pytest.fixture
def node(workspace):
    """Return a function that launches entities and returns the words and the parameter files of each node."""
    workspace.executable("node", NODE)

    def launch(*entities, **options):
        code, output = workspace.launch(*entities, **options)
        assert code == 0, output
        found = [json.loads(line.split("NODE ", 1)[1]) for line in output.splitlines() if "NODE " in line]
        return [(words, [yaml.safe_load(file) for file in files]) for words, files in found]

    return launch


PLAIN = "Node(package='demo', executable='node', output='screen')"


def test_a_plain_node_gets_an_empty_list_of_ros_arguments(node):
    assert node(PLAIN) == [(["--ros-args"], [])]


def test_arguments_come_before_those_for_ros(node):
    [(words, _)] = node(
        "Node(package='demo', executable=['no', 'de'], output='screen',"
        " arguments=['-d', LaunchConfiguration('x')], ros_arguments=['--log-level', 'debug'])",
        arguments=("x:=y",),
    )
    assert words == ["-d", "y", "--ros-args", "--log-level", "debug"]


@pytest.mark.parametrize(
    ("scopes", "namespace", "full"),
    [
        ((), "a", "/a"),
        (("robot",), "a", "/robot/a"),
        (("robot", "left"), "arm", "/robot/left/arm"),
        (("robot", "/left"), "arm", "/left/arm"),
        (("robot",), "/arm", "/arm"),
        (("robot",), None, "/robot"),
        ((), "", "/"),
    ],
)
def test_namespaces_are_joined_and_an_absolute_one_starts_anew(node, scopes, namespace, full):
    pushes = [f"PushRosNamespace('{scope}')" for scope in scopes]
    [(words, _)] = node(
        *pushes,
        f"Node(package='demo', executable='node', output='screen', name='n', namespace={namespace!r})",
    )
    assert words == ["--ros-args", "-r", "__node:=n", "-r", f"__ns:={full}"]


def test_parameters_become_a_file_for_exactly_this_node(node):
    [(_, [content])] = node(
        "Node(package='demo', executable='node', output='screen', name='n', namespace='ns',"
        " parameters=[parameters])",
        before="""
            parameters = {
                'flag': True, 'count': 3, 'rate_hz': 0.5, 'text': '7', 'names': ['a', 'b'], 'sizes': (1, 2),
                'nested': {'deep': {'gain': 2.0}},
                'parsed': LaunchConfiguration('x'),
                'joined': [LaunchConfiguration('x'), '.5'],
                'list': [[LaunchConfiguration('x')], ['4']],
                'kept': ParameterValue(LaunchConfiguration('x'), value_type=str),
                'float': ParameterValue(LaunchConfiguration('x'), value_type=float),
                'flag2': ParameterValue('true', value_type=bool),
                ('made_', LaunchConfiguration('x')): 'name',
            }
        """,
        arguments=("x:=3",),
    )
    assert content == {
        "/ns/n": {
            "ros__parameters": {
                "flag": True,
                "count": 3,
                "rate_hz": 0.5,
                "text": "7",
                "names": ["a", "b"],
                "sizes": [1, 2],
                "nested.deep.gain": 2.0,
                "parsed": 3,
                "joined": 3.5,
                "list": [3, ["4"]],
                "kept": "3",
                "float": 3.0,
                "flag2": True,
                "made_3": "name",
            }
        }
    }


def test_parameters_of_a_node_without_a_name_are_for_every_node(node):
    [(_, [content])] = node("Node(package='demo', executable='node', output='screen', parameters=[{'a': 1}])")
    assert content == {"/**": {"ros__parameters": {"a": 1}}}


def test_a_parameter_of_the_wrong_type_is_an_error(workspace):
    workspace.executable("node", NODE)
    code, output = workspace.launch(
        "Node(package='demo', executable='node', parameters=[{'a': ParameterValue('x', value_type=int)}])"
    )
    assert code == 1 and "expected a parameter of type int, got 'x'" in output


def test_parameter_files_are_given_in_order_and_their_substitutions_replaced_on_request(node, workspace):
    file = workspace.share / "p.yaml"
    file.write_text("/**: {ros__parameters: {path: $(find-pkg-share demo)/x, rate: $(var rate)}}")
    [(words, files)] = node(
        f"Node(package='demo', executable='node', output='screen', parameters=['{file}', {{'rate': 9}},"
        f" ParameterFile('{file}', allow_substs=True), ParameterFile(['{workspace.share}', '/p.yaml'])])",
        arguments=("rate:=20",),
    )
    assert words.count("--params-file") == 4
    assert words[2] == words[8] == str(file)
    assert files[1] == {"/**": {"ros__parameters": {"rate": 9}}}
    assert files[2] == {"/**": {"ros__parameters": {"path": f"{workspace.share}/x", "rate": 20}}}
    assert files[3] == {
        "/**": {"ros__parameters": {"path": "$(find-pkg-share demo)/x", "rate": "$(var rate)"}}
    }


@pytest.mark.parametrize("parameters", ["'/nowhere.yaml'", "ParameterFile('/nowhere.yaml')"])
def test_a_missing_parameter_file_is_an_error(workspace, parameters):
    workspace.executable("node", NODE)
    code, output = workspace.launch(f"Node(package='demo', executable='node', parameters=[{parameters}])")
    assert code == 1 and "parameter file '/nowhere.yaml' does not exist" in output


def test_parameters_and_remappings_of_a_scope_are_words_for_its_nodes_only(node):
    own = (
        "Node(package='demo', executable='node', output='screen', name='n', parameters=[{'a': 1}],"
        " remappings=[('c', [LaunchConfiguration('x'), '2'])])"
    )
    nodes = node(
        f"GroupAction([SetParameter('use_sim_time', True), SetParameter(name='label', value='yes'),"
        f" SetRemap('a', 'b'), {own}])",
        PLAIN,
        arguments=("x:=d",),
    )
    # They run side by side and print in any order.
    outside, inside = sorted(nodes, key=lambda found: len(found[0]))
    words, [content] = inside
    file = words[words.index("--params-file") + 1]
    assert words == [
        *("--ros-args", "-r", "__node:=n", "-p", "use_sim_time:=true", "-p", "label:='yes'"),
        *("--params-file", file, "-r", "a:=b", "-r", "c:=d2"),
    ]
    assert content == {"/n": {"ros__parameters": {"a": 1}}}
    assert outside == (["--ros-args"], [])


def test_a_node_of_no_package_is_any_executable(workspace):
    _, output = workspace.launch("Node(executable='echo', name='n', exec_name='label', output='screen')")
    assert "[label-1] --ros-args -r __node:=n\n" in output


def test_an_unknown_executable_is_an_error(workspace):
    workspace.executable("node", NODE)
    code, output = workspace.launch("Node(package='demo', executable='nod')")
    assert code == 1 and "executable 'nod' not found" in output and "did you mean 'node'?" in output


def test_parameter_files_are_removed_in_the_end(node, workspace, tmp_path):
    workspace.environment["TMPDIR"] = str(tmp_path)
    assert node("Node(package='demo', executable='node', output='screen', parameters=[{'a': 1}])")
    assert list(tmp_path.glob("launch_params_*")) == []
