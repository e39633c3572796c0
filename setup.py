"""Packaging of segloop: `pip install .`"""

import pathlib

import setuptools

setuptools.setup(
    name="segloop",
    version="0.1.0",
    description="A custom training loop for semantic segmentation in TensorFlow 2.",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=setuptools.find_packages(
        include=["trainer", "trainer.*", "data", "data.*", "models", "models.*"]
    ),
    python_requires=">=3.10",
    install_requires=[
        "absl-py>=2.0",
        # tensorflow-datasets imports it on Python 3.11 and does not say so.
        "importlib_resources",
        "keras>=3.8",
        "numpy>=1.26",
        "pillow>=11.0,<14",
        # TensorFlow 2.21 no longer brings it.
        "tensorboard>=2.19",
        "tensorflow>=2.19",
        "tensorflow-datasets>=4.9.7",
        "tqdm>=4.60",
    ],
    extras_require={
        # What tests/benchmarks/against_torch.py compares with.
        "benchmark": ["torch>=2.5,<3"],
        "gpu": ["tensorflow[and-cuda]>=2.19"],
        # Not on PyPI.
        "examples": [
            "tensorflow-examples @ git+https://github.com/tensorflow/examples.git"
        ],
        "test": ["pytest>=8", "pytest-xdist>=3", "ruff>=0.9"],
    },
    entry_points={"console_scripts": ["segloop = trainer.main:run"]},
)
