#!/usr/bin/env bash
# Prove every way of installing this package, in a temporary folder: takes minutes, so it is not part of `make test`.
#
#   pip install -e .      pip install .      colcon build      colcon build --symlink-install
#
# After each: the interfaces are importable, nodes are where `ros2 run` and launch look, and so are launch files,
# configuration and the ament marker. What training needs besides (PyTorch, Warp) is not installed.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly python=${PYTHON:-python3}
folder=$(mktemp --directory)
readonly folder
trap 'rm -rf "$folder"' EXIT

# The shell may come from an environment of its own: let nothing of it through.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH VIRTUAL_ENV

say() { printf '\n=== %s\n' "$*"; }

# check PREFIX: fail unless everything is in the prefix and importable by the interpreter on the PATH.
check() {
  local prefix=$1 file
  for file in lib/rewarped_sim/{train_node,sim_node,policy_runner} \
    share/ament_index/resource_index/packages/{rewarped_sim,rewarped_msgs} \
    share/rewarped_sim/package.xml share/rewarped_msgs/package.xml \
    $(cd "$source" && find launch config security -type f | sed 's,^,share/rewarped_sim/,'); do
    [[ -e $prefix/$file ]] || { say "missing: $file"; exit 1; }
  done
  for file in "$prefix"/lib/rewarped_sim/*; do
    [[ -x $file ]] || { say "not executable: $file"; exit 1; }
  done
  (cd / && python -c '
from rewarped_msgs.action import Train
from rewarped_msgs.msg import TrainingStatus
from rewarped_msgs.srv import LoadPolicy
import policy_runner.contract
from rclpy.serialization import deserialize_message, serialize_message

status = TrainingStatus(task="rolling_flat", state=TrainingStatus.STATE_TRAINING, epoch=7)
assert deserialize_message(serialize_message(status), TrainingStatus) == status
assert Train.Feedback().status == TrainingStatus() and LoadPolicy.Request().path == ""
print("interfaces and packages import:", policy_runner.contract.__file__)')
}

say "copying the working tree, making an environment with the ROS wheels and colcon"
readonly source=$folder/workspace/src/rewarped_sim
mkdir -p "$source"
git ls-files --cached --others --exclude-standard -z | xargs -0 cp --parents --target-directory "$source"
"$python" -m venv "$folder/venv"
export PATH=$folder/venv/bin:$PATH
pip() { python -m pip --disable-pip-version-check --quiet --quiet "$@"; }
pip install -r requirements/ros.txt colcon-common-extensions numpy

for options in '--editable' ''; do
  say "pip install $options ."
  (cd "$source" && pip install --no-deps $options .)
  check "$folder/venv"
  pip uninstall --yes rewarped_sim
  if (cd / && python -c 'import rewarped_msgs' 2>/dev/null); then
    say "left behind by pip uninstall: rewarped_msgs"
    exit 1
  fi
done

for options in '' '--symlink-install'; do
  say "colcon build $options"
  rm -rf "$folder"/workspace/{build,install,log}
  (
    cd "$folder/workspace"
    colcon build $options --event-handlers console_stderr-
    export AMENT_PREFIX_PATH=$folder/venv COLCON_TRACE='' AMENT_TRACE_SETUP_FILES=''
    set +u
    . install/setup.bash
    set -u
    check install/rewarped_sim
  )
done

say "all four ways work"
