import rclpy
from std_srvs.srv import Trigger

from rewarped_sim.nodes.lifetime import spinning


def test_a_callback_that_fails_leaves_the_others_answered(probe):
    node = rclpy.create_node("clumsy")

    def fail(request, response):
        raise ValueError("as callbacks do")

    def answer(request, response):
        response.success = True
        return response

    node.create_service(Trigger, "~/fail", fail)
    node.create_service(Trigger, "~/answer", answer)
    with spinning(node):
        client = probe.node.create_client(Trigger, "/clumsy/fail")
        probe.wait_for(client.service_is_ready, "a service")
        client.call_async(Trigger.Request())
        assert probe.call(Trigger, "/clumsy/answer", Trigger.Request()).success
        client.call_async(Trigger.Request())
        assert probe.call(Trigger, "/clumsy/answer", Trigger.Request()).success
