"""With a real lifecycle node over DDS, on a domain of its own."""

import os
import sys

import pytest

NODE = """\
#!/usr/bin/env python3
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

class Managed(LifecycleNode):
    def on_configure(self, state):
        print("configuring", self.get_fully_qualified_name(), flush=True)
        return TransitionCallbackReturn.SUCCESS

rclpy.init()
try:
    rclpy.spin(Managed("managed"))
except (KeyboardInterrupt, ExternalShutdownException):
    pass
"""


@pytest.fixture
def workspace(workspace):
    pytest.importorskip("rclpy")
    workspace.executable("managed", NODE)
    workspace.environment |= {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
    }
    return workspace


def test_autostart_configures_and_activates_the_node_and_tells_of_each_transition(workspace):
    code, output = workspace.launch(
        "node",
        "RegisterEventHandler(OnStateTransition(target_lifecycle_node=node, goal_state='inactive',"
        " start_state='configuring', entities=[LogInfo(msg='now inactive')]))",
        "RegisterEventHandler(OnStateTransition(target_lifecycle_node=node, goal_state='active',"
        " entities=[LogInfo(msg='now active'), Shutdown(reason='seen enough')]))",
        before="""
            from launch_ros.event_handlers import OnStateTransition
            node = LifecycleNode(package='demo', executable='managed', name='managed', namespace='robot',
                                 output='screen', autostart=True)
        """,
    )
    assert code == 0, output
    assert (
        output.index("configuring /robot/managed") < output.index("now inactive") < output.index("now active")
    )


def test_a_launch_file_can_ask_for_each_transition_itself(workspace):
    code, output = workspace.launch(
        "node",
        "EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=1))",
        "RegisterEventHandler(OnStateTransition(goal_state='inactive', entities=[Shutdown(reason='done')]))",
        before="""
            from launch_ros.event_handlers import OnStateTransition
            from launch_ros.events.lifecycle import ChangeState
            node = LifecycleNode(package='demo', executable='managed', name='managed', namespace='',
                                 output='screen')
        """,
    )
    assert code == 0, output
    assert "configuring /managed" in output


def test_a_refused_transition_is_reported(workspace):
    _, output = workspace.launch(
        "node",
        "EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=3))",
        "EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=1))",
        "RegisterEventHandler(OnStateTransition(goal_state='inactive', entities=[Shutdown(reason='done')]))",
        before="""
            from launch_ros.event_handlers import OnStateTransition
            from launch_ros.events.lifecycle import ChangeState
            node = LifecycleNode(package='demo', executable='managed', name='managed', namespace='',
                                 output='screen')
        """,
    )
    assert "'/managed' refused transition 3" in output
