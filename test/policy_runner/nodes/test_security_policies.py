"""The SROS2 policies allow what the nodes do and nothing else; no node listens to the network.

Every process runs alone on a domain of its own, so whatever else is on the graph is its.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from robot import HANG_S, ROOT

SECURITY = ROOT / "security"
DOMAIN = 1 + (os.getpid() + 50) % 100  # not the one of the other tests of this session
ENVIRONMENT = {
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "ROS_DOMAIN_ID": str(DOMAIN),
    "FASTDDS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds_shm.xml"),
}
COMMANDS = ("joint_trajectory", "commands", "joint_command")
ACTION = {"reply": ("send_goal", "get_result", "cancel_goal"), "publish": ("feedback", "status")}
LISTENS = "0A"
"""State of a socket in /proc/net/tcp."""
WITHOUT_TF2_MSGS = importlib.util.find_spec("tf2_msgs") is None


# what a policy allows and what the graph shows: both as sets of (verb, name)


def policy_of(name):
    return ElementTree.parse(SECURITY / f"{name}.policy.xml").getroot()


def allowed(name):
    """Everything that a policy allows, by its full name."""
    rules = set()
    for profile in policy_of(name).iter("profile"):
        namespace, node = profile.get("ns"), profile.get("node")
        for block in profile:
            (verb,) = (verb for verb, answer in block.items() if answer == "ALLOW")
            for expression in block:
                full = full_name(expression.text, namespace, node)
                if verb == "execute":
                    rules |= {(v, f"{full}/_action/{part}") for v, parts in ACTION.items() for part in parts}
                else:
                    rules.add((verb, full))
    return rules


def full_name(name, namespace, node):
    if name.startswith("/"):
        return name
    return namespace + (node + name[1:] if name.startswith("~/") else name)


def used(observer):
    """Everything that others than the observer do."""
    verbs = {
        "publish": observer.get_publisher_names_and_types_by_node,
        "subscribe": observer.get_subscriber_names_and_types_by_node,
        "reply": observer.get_service_names_and_types_by_node,
        "request": observer.get_client_names_and_types_by_node,
    }
    found = set()
    for name, namespace in observer.get_node_names_and_namespaces():
        if name == observer.get_name():
            continue
        with contextlib.suppress(Exception):  # gone between the two questions
            found |= {(verb, topic) for verb, ask in verbs.items() for topic, _ in ask(name, namespace)}
    return found


# the three processes


@pytest.fixture(scope="module")
def observer():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        context = Context()
        rclpy.init(context=context, domain_id=DOMAIN)
        node = rclpy.create_node("observer", context=context)
        yield node
        node.destroy_node()
        rclpy.shutdown(context=context)


@contextlib.contextmanager
def running(module, *words, log):
    """A node's process; one that does not end says where it is."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--ros-args", *words],
            env=os.environ | ENVIRONMENT,
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(HANG_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)
            time.sleep(1.0)
            raise AssertionError(log.read_text()) from None
        finally:
            process.kill()


@pytest.fixture(scope="module")
def goal_bundle(bundles, tmp_path_factory):
    """A policy that uses all that a runner can subscribe to."""
    contract = bundles.contract()
    goal = replace(contract.obs_terms[0], name="goal", kind="goal_position", unit="m", frame="world")
    contract = replace(contract, obs_terms=(*contract.obs_terms, goal))
    return bundles.write(tmp_path_factory.mktemp("bundle"), contract)


def starts_of(name, bundle):
    """Module and arguments of the processes that together do all that a node can do."""
    if name == "train_node":
        return [("rewarped_sim.nodes.train_node", ["-p", "wait_for_goal:=true"])]
    if name == "sim_node":
        topics = (*COMMANDS, "goal")
        remappings = [word for topic in topics for word in ("-r", f"~/{topic}:=policy_runner/{topic}")]
        settings = ("runner:=policy_runner", "publish_clock:=true", "camera:=depth", "camera_width:=32")
        parameters = [word for setting in settings for word in ("-p", setting)]
        return [("rewarped_sim.nodes.sim_node", [*remappings, *parameters])]
    settings = (f"policy:={bundle}", "vet_timeout_s:=60.0", "use_sim_time:=true", "debug_topics:=true")
    parameters = [word for setting in settings for word in ("-p", setting)]
    return [
        ("policy_runner.nodes.runner", [*parameters, "-p", f"command_type:={command_type}"])
        for command_type in COMMANDS
    ]


class Watched:
    """What was seen of a node while it ran."""

    def __init__(self, name, observer, bundle, log):
        self.name, self.used, self.sockets, self.log = name, set(), [], log
        self.expected = {rule for rule in allowed(name) if not (WITHOUT_TF2_MSGS and "/tf" in rule[1])}
        for module, words in starts_of(name, bundle):
            with running(module, *words, log=log) as process:
                self._watch(observer, process)

    def _watch(self, observer, process):
        """Look until the graph stands still for a while and, if the policy is right, shows what it allows."""
        deadline_s, still_since_s = time.monotonic() + HANG_S, time.monotonic()
        before: set = set()
        commands = {("publish", f"/policy_runner/{command}") for command in COMMANDS}
        while time.monotonic() < deadline_s and process.poll() is None:
            now = used(observer)
            if now != before:
                before, still_since_s = now, time.monotonic()
            complete = self.expected - commands <= now and (now & commands or self.name != "policy_runner")
            if complete and time.monotonic() - still_since_s > 0.5:
                break
            time.sleep(0.05)
        self.used |= before
        self.sockets += sockets_of(process.pid)


def wait_until_alone(observer):
    """Wait until a process that has ended is out of the graph."""
    deadline_s = time.monotonic() + HANG_S
    while used(observer) and time.monotonic() < deadline_s:
        time.sleep(0.05)


@pytest.fixture(scope="module", params=["policy_runner", "sim_node", "train_node"])
def watched(request, observer, goal_bundle, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log"
    watched = Watched(request.param, observer, goal_bundle, log)
    yield watched
    wait_until_alone(observer)


def test_a_node_does_what_its_policy_allows_and_nothing_else(watched):
    log = watched.log.read_text()
    assert sorted(watched.used - watched.expected) == [], log  # would be denied
    assert sorted(watched.expected - watched.used) == [], log  # more than it needs


def test_the_policies_name_one_enclave_each():
    names = {path.name.removesuffix(".policy.xml") for path in SECURITY.glob("*.policy.xml")}
    assert names == {"policy_runner", "sim_node", "train_node", "operator"}
    for name in names:
        root = policy_of(name)
        assert root.attrib == {"version": "0.2.0"}
        assert [enclave.get("path") for enclave in root.iter("enclave")] == [f"/rewarped_sim/{name}"]


@pytest.mark.parametrize(
    ("launch_file", "name"), [("deploy", "policy_runner"), ("play", "sim_node"), ("train", "train_node")]
)
def test_launch_files_put_the_nodes_into_their_enclaves(launch_file, name):
    text = (ROOT / "launch" / f"{launch_file}.launch.py").read_text()
    assert '"--enclave"' in text and f'"/rewarped_sim/{name}"' in text


def test_nothing_is_allowed_by_wildcard():
    for path in SECURITY.glob("*.policy.xml"):
        names = [element.text for element in policy_of(path.name.removesuffix(".policy.xml")).iter()]
        assert not [name for name in names if re.search(r"[*?\[\]]", name or "")]


def test_the_operator_may_call_what_the_runner_answers_but_set_no_parameters():
    runner, operator = allowed("policy_runner"), allowed("operator")
    calls = {name for verb, name in operator if verb == "request"}
    assert {f"/policy_runner/{name}" for name in ("arm", "stop", "reset_stop", "load_policy")} < calls
    assert calls < {name for verb, name in runner if verb == "reply"}
    assert not {name for name in calls if "parameter" in name}
    heard = {name for verb, name in operator if verb == "subscribe"}
    assert heard <= {name for verb, name in runner if verb == "publish"}


OPERATOR = """
import sys
import time
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log
from rewarped_msgs.srv import LoadPolicy
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import SetBool, Trigger

rclpy.init()
calls = {"arm": SetBool, "stop": Trigger, "reset_stop": Trigger, "load_policy": LoadPolicy,
         "change_state": ChangeState, "get_state": GetState}
nodes = {}
for name, kind in calls.items():  # as `ros2 service call` names its nodes
    package = kind.__module__.split(".")[0]
    node = f"_ros2cli_requester_{package}_{kind.__name__}"
    nodes.setdefault(node, rclpy.create_node(node) if node not in nodes else None)
    nodes[node].create_client(kind, f"/policy_runner/{name}")
viewer = rclpy.create_node("operator")
topics = {"/policy_runner/status": DiagnosticStatus, "/policy_runner/policy_points": PointCloud2,
          "/policy_runner/transition_event": TransitionEvent, "/diagnostics": DiagnosticArray, "/rosout": Log}
for topic, kind in topics.items():
    viewer.create_subscription(kind, topic, print, 1)
sys.stdin.read()
rclpy.shutdown()
"""


def test_the_operator_may_do_what_it_takes_to_call_and_to_look_and_nothing_else(observer):
    command = [sys.executable, "-c", OPERATOR]
    operator = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdin=subprocess.PIPE)
    try:
        deadline_s = time.monotonic() + HANG_S
        while used(observer) != allowed("operator") and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert sorted(used(observer) - allowed("operator")) == []
        assert sorted(allowed("operator") - used(observer)) == []
    finally:
        operator.communicate(timeout=HANG_S)  # ends its input, and with that itself
        wait_until_alone(observer)


def test_robot_and_runner_may_say_what_the_other_may_hear():
    runner, robot = allowed("policy_runner"), allowed("sim_node")
    for topic in ("/points", "/joint_states", "/policy_runner/goal", "/clock", "/tf", "/tf_static"):
        assert ("publish", topic) in robot and ("subscribe", topic) in runner
    for command in COMMANDS:
        topic = f"/policy_runner/{command}"
        assert ("publish", topic) in runner and ("subscribe", topic) in robot
    assert ("request", "/policy_runner/arm") in robot


def test_where_security_is_enforced_a_node_without_keys_does_not_start(tmp_path):
    enclave = "/rewarped_sim/policy_runner"
    (tmp_path / "enclaves" / enclave[1:]).mkdir(parents=True)
    enforced = {
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(tmp_path),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "policy_runner.nodes.runner", "--ros-args", "--enclave", enclave],
        env=os.environ | ENVIRONMENT | enforced,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert ended.returncode != 0
    assert "security" in ended.stderr.lower()


# row 48: what a network sees


def sockets_of(pid):
    """(protocol, address in hexadecimal, port, state) of every socket of a process in the kernel's tables."""
    descriptors = Path(f"/proc/{pid}/fd")
    targets = []
    for descriptor in descriptors.iterdir():
        with contextlib.suppress(OSError):
            targets.append(os.readlink(descriptor))
    inodes = {target[len("socket:[") : -1] for target in targets if target.startswith("socket:[")}
    found = []
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes:
                address, _, port = words[1].rpartition(":")
                found.append((protocol, address, int(port, 16), words[3]))
    return found


def listening(sockets):
    return [s for s in sockets if s[0].startswith("tcp") and s[3] == LISTENS]


def test_no_node_listens_for_tcp(watched):
    assert watched.sockets  # it does speak to others
    assert listening(watched.sockets) == []


def test_ports_of_discovery_and_data_are_open_to_this_machine_only(watched):
    first = 7400 + 250 * DOMAIN
    ports = [s for s in watched.sockets if s[0].startswith("udp") and first <= s[2] < first + 250]
    assert ports
    assert {address for _, address, _, _ in ports} == {"0100007F"}  # 127.0.0.1, least byte first


@pytest.mark.parametrize(("family", "protocol"), [(socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")])
def test_the_scan_finds_a_port_that_listens(family, protocol):
    with socket.socket(family) as server:
        server.bind(("::1" if family is socket.AF_INET6 else "127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert (protocol, port) in {(s[0], s[2]) for s in listening(sockets_of(os.getpid()))}
