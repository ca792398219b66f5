#!/usr/bin/env bash
# Runs a command where ROS 2 and the package in $VIRTUAL_ENV are found.
set -eo pipefail # not -u: the setup files of ROS 2 read variables that are not set
: "${VIRTUAL_ENV:?is not set, expected the folder that install_package.sh filled}"
ros_setup=${ROS_SETUP:-/opt/ros/$ROS_DISTRO/setup.bash}
if [ ! -f "$ros_setup" ]; then
    echo "there is no $ros_setup, expected that of a ROS 2: set ROS_DISTRO or ROS_SETUP" >&2
    exit 2
fi
# shellcheck disable=SC1090
source "$ros_setup"
export AMENT_PREFIX_PATH=$VIRTUAL_ENV${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}
export PYTHONPATH=$VIRTUAL_ENV/ros_path${PYTHONPATH:+:$PYTHONPATH}
export PATH=$VIRTUAL_ENV/bin:$PATH
exec "$@"
