#!/usr/bin/env bash
# Installs the package into a new virtual environment, and so that ROS 2 finds it there.
#   install_package.sh SOURCE VENV [none|rtx|nvidia|jetson]
# The last word is the GPU: none (CPU alone), rtx (TensorRT for RTX), nvidia (TensorRT) or jetson
# (TensorRT is JetPack's own).
set -euo pipefail
source=$1 venv=$2 gpu=${3:-none}
case $gpu in
    none) extras=openvino packages=() ;;
    rtx) extras=openvino,tensorrt_rtx packages=(nvidia-cuda-runtime) ;;
    nvidia) extras=openvino packages=(tensorrt) ;;
    jetson) extras="" packages=() ;;
    *)
        echo "GPU is '$gpu', expected none, rtx, nvidia or jetson" >&2
        exit 2
        ;;
esac
# ROS 2's cv_bridge is built for OpenCV 4, and fails beside OpenCV 5, which numbers pixel types anew.
packages+=("opencv-python-headless<5")
# ROS 2's messages were compiled for the system's NumPy: another major version refuses to load them.
if major=$(python3 -c 'import numpy; print(numpy.__version__.split(".")[0])' 2>/dev/null); then
    packages+=("numpy<$((major + 1))")
fi
python3 -m venv "$venv"
"$venv/bin/python" -m pip install --no-cache-dir "$source${extras:+[$extras]}" "${packages[@]}"

# `ros2 run` and `ros2 launch` look for executables here, where pip does not put them.
mkdir -p "$venv/lib/dense_perception"
ln -s "$venv"/bin/*_node "$venv/bin/dense-perception" "$venv/lib/dense_perception/"
# The launch files run in the system's Python, which gets this package and nothing else from here.
mkdir "$venv/ros_path"
ln -s "$venv"/lib/python3*/site-packages/dense_perception "$venv/ros_path/"
