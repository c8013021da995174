"""A stand-in for `ros2 launch` and `ros2 run` where ROS 2 comes from Python wheels, which lack them.

Launch files are written against the real `launch` and `launch_ros`; this package carries out the part of
that interface that `offer.py` lists. It never replaces the real thing: where a real `ros2` is on the PATH,
this one hands over to it.
"""
