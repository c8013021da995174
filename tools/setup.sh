#!/usr/bin/env bash
# Bring a fresh checkout to the state in which `make train`, `make test` and the other targets work.
#
# Makes .venv, installs wheels into it, builds the interfaces in msg/, installs this package in place, and adds the
# stand-in `ros2` where there is no real one. A step is done again only when the files it depends on have changed,
# so running this a second time takes a fraction of a second. Nothing here ever asks for input.
#
# PYTHON=<interpreter> chooses the interpreter for .venv: Python 3.10, 3.11 or 3.12. Without it an existing .venv stays
# as it is, and a new one gets the first that is found.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly venv="$PWD/.venv"
readonly stamps="$venv/setup"  # one empty file per finished step; its time says when

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

# --- Debian packages ---------------------------------------------------------------------------------------------

# Shared libraries that wheels expect from the system: OpenMP (warp, torch), and what Open3D draws with.
readonly libraries=(libgomp1 libgl1 libusb-1.0-0 libvulkan1 mesa-vulkan-drivers)

is_installed() { [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]; }

# Print the Debian packages that are missing. Python's own are needed only if the interpreter lacks their content.
missing_packages() {
  local python=$1 package
  command -v c++ >/dev/null || echo build-essential
  if [[ -z $python ]]; then
    printf '%s\n' python3 python3-dev python3-venv
  else
    local version
    version=$(version_of "$python")
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "python$version-venv"
    "$python" -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' ||
      echo "python$version-dev"
  fi
  for package in "${libraries[@]}"; do
    is_installed "$package" || echo "$package"
  done
}

install_packages() {
  local python=$1 packages as_root=()
  if ! command -v dpkg-query >/dev/null; then
    [[ -d $venv ]] || say "this is not Debian or Ubuntu: see to a C++ compiler, the Python headers, OpenMP, libGL," \
      "libusb 1.0 and a Vulkan driver yourself"
    return
  fi
  mapfile -t packages < <(missing_packages "$python")
  [[ ${#packages[@]} -gt 0 ]] || return 0
  if [[ $(id -u) != 0 ]]; then
    if ! sudo --non-interactive true 2>/dev/null; then
      say "going on without these Debian packages: ${packages[*]}"
      say "to install them: sudo apt-get install ${packages[*]}"
      return
    fi
    as_root=(sudo --non-interactive)
  fi
  say "installing Debian packages: ${packages[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c '
    apt-get -qq update && apt-get -qq install --yes --no-install-recommends "$@" >/dev/null' apt "${packages[@]}" ||
    say "that failed; going on without them. To try again: apt-get install ${packages[*]}"
}

# --- Python ------------------------------------------------------------------------------------------------------

# Succeed if the interpreter runs and has a version that setup.py accepts.
is_suitable() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; }

# Print the interpreter that PYTHON names, else the first suitable one, or nothing.
find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    is_suitable "$PYTHON" || fail "PYTHON=$PYTHON does not run or is not Python 3.10, 3.11 or 3.12"
    command -v "$PYTHON"
    return
  fi
  for candidate in python3 python3.12 python3.11 python3.10; do
    if is_suitable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
}

# Succeed if the interpreter sees a ROS installation because its setup.bash was sourced.
ros_is_sourced() { [[ -n ${ROS_DISTRO:-} ]] && "$1" -c 'import rclpy, rosidl_adapter' 2>/dev/null; }

# Print the version that decides which wheels fit, such as 3.11.
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

make_venv() {
  local python=$1
  if is_suitable "$venv/bin/python"; then
    [[ -n ${PYTHON:-} && -n $python && $(version_of "$python") != "$(version_of "$venv/bin/python")" ]] || return 0
  fi
  [[ -n $python ]] || fail "Python 3.10, 3.11 or 3.12 is needed, and neither python3 nor python3.12, python3.11 or" \
    "python3.10 is one: install one and name it, make PYTHON=/path/to/python3.12 ..."
  say "making .venv with $("$python" --version)"
  local options=(--clear)
  if ros_is_sourced "$python"; then
    options+=(--system-site-packages)  # the ROS installation relies on Python packages of the system
  fi
  "$python" -m venv "${options[@]}" "$venv" || fail "could not make .venv; on Debian: apt-get install python3-venv"
  mkdir -p "$stamps"
}

# is_current STAMP PATH...: succeed if the step is done and no file in the paths has changed since.
is_current() {
  local stamp=$stamps/$1
  shift
  [[ -e $stamp && -z $(find "$@" -newer "$stamp" -not -name '*.pyc' -not -name __pycache__ -print -quit) ]]
}

pip_install() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --quiet "$@"; }

# install_wheels NAME WHAT: install requirements/NAME.txt.
install_wheels() {
  local name=$1 what=$2
  is_current "$name" "requirements/$name.txt" && return
  say "installing $what ..."
  pip_install -r "requirements/$name.txt" || fail "could not install requirements/$name.txt"
  touch "$stamps/$name"
}

install_ros() {
  if ros_is_sourced "$venv/bin/python"; then
    return
  fi
  if [[ $(uname -sm) != 'Linux x86_64' ]]; then
    fail "no wheels of ROS 2 exist for $(uname -sm): install ROS 2, source its setup.bash, and run make again"
  fi
  install_wheels ros "ROS 2 and the tools to build interfaces (400 MB)"
}

install_package() {
  local sources=(setup.py setup.cfg package.xml pyproject.toml cmake config launch msg requirements resource)
  is_current package "${sources[@]}" && return
  say "building the interfaces in msg/ and installing rewarped_sim ..."
  pip_install --no-deps --editable . || fail "could not build and install this package; the reason is above"
  touch "$stamps/package"
}

# --- ros2 --------------------------------------------------------------------------------------------------------

# Print the folders of PATH except .venv/bin, which may hold the stand-in.
path_outside_venv() { tr : '\n' <<<"$PATH" | grep -vxF "$venv/bin" | paste -sd:; }

install_ros2_command() {
  if PATH=$(path_outside_venv) command -v ros2 >/dev/null; then
    return
  fi
  is_current ros2_lite tools/ros2_lite/pyproject.toml && return
  say "installing tools/ros2_lite, a stand-in for 'ros2 launch' and 'ros2 run' ..."
  pip_install --no-deps --editable tools/ros2_lite || fail "could not install tools/ros2_lite"
  touch "$stamps/ros2_lite"
}

# -----------------------------------------------------------------------------------------------------------------

python=$(find_python)
install_packages "$python"
[[ -n $python ]] || python=$(find_python)
make_venv "$python"
install_ros
install_wheels runner "NumPy, ONNX Runtime and Open3D (600 MB)"
install_wheels train "PyTorch, Warp and the rest of what training needs (PyTorch is large: 200 MB to 3 GB)"
install_wheels import "what MJCF and URDF files are read with (90 MB)"
install_wheels dev "the tools for tests and checks"
install_package
install_ros2_command
