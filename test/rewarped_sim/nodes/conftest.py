"""Nodes under test run in processes of their own, on a ROS domain of this test session's own."""

import os
import signal
import subprocess
import sys
import time

import pytest

# Before rclpy starts anywhere. Domains up to 101 are free of the ports that Linux gives to others.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

import rclpy

PATIENCE_S = 240.0
"""Guards against hangs only: a loaded machine is slow."""


class Process:
    """A node in a process, with its output in a file."""

    def __init__(self, module, words, folder):
        self.log_path = folder / f"{module}.log"
        with self.log_path.open("w") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", module, "--ros-args", *words],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self):
        return self.log_path.read_text()

    def send(self, number):
        self.popen.send_signal(number)

    def wait(self):
        return self.popen.wait(timeout=PATIENCE_S)

    def end(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGINT)
            try:
                self.popen.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.popen.kill()


@pytest.fixture
def start(tmp_path):
    """Start `module` with parameters and remappings; ended with the test."""
    processes = []

    def start_node(module, *remappings, **parameters):
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        words += [word for remapping in remappings for word in ("-r", remapping)]
        processes.append(Process(module, words, tmp_path))
        return processes[-1]

    yield start_node
    for process in processes:
        process.end()
        print(process.log)  # seen where a test fails


class Probe:
    """A node of the test's own: listens, speaks and calls, and waits with a limit."""

    def __init__(self):
        self.node = rclpy.create_node("probe")
        self.heard = {}

    def listen(self, message_type, topic, qos=10):
        self.heard[topic] = []
        self.node.create_subscription(message_type, topic, self.heard[topic].append, qos)

    def wait_for(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while not (result := condition()):
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            rclpy.spin_once(self.node, timeout_sec=0.1)
        return result

    def wait_for_message(self, topic, matching=lambda message: True):
        def found():
            return next((message for message in self.heard[topic] if matching(message)), None)

        return self.wait_for(found, f"a message on {topic}")

    def call(self, service_type, name, request):
        client = self.node.create_client(service_type, name)
        self.wait_for(client.service_is_ready, name)
        future = client.call_async(request)
        self.wait_for(future.done, f"the answer of {name}")
        return future.result()


@pytest.fixture
def probe():
    rclpy.init()
    probe = Probe()
    yield probe
    probe.node.destroy_node()
    rclpy.shutdown()
