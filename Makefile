# The whole interface of a fresh checkout. Every target first sets up what it needs (tools/setup.sh): .venv, Debian
# packages, wheels, interfaces. The first run takes minutes, later ones a fraction of a second.

SHELL := bash
VENV := $(CURDIR)/.venv

# The nodes' scripts find this interpreter, and a real `ros2` finds this package.
export PATH := $(VENV)/bin:$(PATH)
export AMENT_PREFIX_PATH := $(VENV)$(addprefix :,$(AMENT_PREFIX_PATH))
export PYTHON

# An activated environment with ROS wheels leaves its libraries behind for every child process; these have their own.
ifdef _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
endif

.PHONY: help train test lint format bench docs setup

help: ## Show this list
	@echo 'make TARGET [ARGS="..."] [PYTHON=python3.12]'
	@sed -nE 's/^([a-z]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

train: setup ## Train a policy in a ROS 2 node: make train ARGS="task:=rolling_flat epochs:=200"
	ros2 launch rewarped_sim train.launch.py $(ARGS)

# Two workers with a thread each: two cores are enough, and more would starve the tests that watch a runner's clock.
test: export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
test: export OMP_NUM_THREADS := 1
test: setup ## Run all tests: make test ARGS="-k gradient"
	python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

lint: setup ## Check style, types and the arrows between packages
	ruff check
	ruff format --check
	pyright
	lint-imports

format: setup ## Rewrite the code in the one style
	ruff check --fix
	ruff format

bench: setup ## Measure speed and memory; results go to bench/results/
	python -m bench $(ARGS)

docs: setup ## Take the documentation's pictures from a finished run: make docs ARGS=runs/<run>
	python docs/make_pictures.py $(ARGS)

setup: ## Install what the other targets need
	@tools/setup.sh
