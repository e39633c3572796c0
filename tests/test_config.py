"""A `Config` that exists is valid; messages name flag, value, rule and remedy."""

import dataclasses
import json
import re

import pytest

from data.augmentation import registry as augmentation_registry
from trainer import errors, flags
from trainer.settings import config, fields


@pytest.fixture(autouse=True)
def _keep_globals():
    """Replaces that of conftest: nothing here touches Keras, and it takes 0.2 s."""


def _make(**settings) -> config.Config:
    return config.from_dict({"model_dir": "runs/a", **settings})


def _parse(*arguments: str) -> config.Config:
    return flags.read_config(arguments).config


# Every setting away from its default, so that a lost one shows.
_UNUSUAL = {
    "mode": "train",
    "model_dir": "runs/with space/ü",
    "seed": 17,
    "deterministic": True,
    "dataset": "folder",
    "data_dir": "/data",
    "images": "photos/**/*.jpg",
    "masks": "labels/**/*.png",
    "label_map": "classes.csv",
    "train_fraction": 0.75,
    "train_half": 1,
    "train_split": "train[:80%]",
    "eval_split": "train[80%:]",
    "image_size": (64, 96),
    "resize": "pad",
    "image_channels": 4,
    "image_range": (0, 4095),
    "eval_native_size": True,
    "num_classes": 3,
    "class_names": ("cat", "dog", "the rest"),
    "label_offset": -1,
    "ignore_label": 0,
    "horizontal_flip": False,
    "random_scale": (0.5, 2.0),
    "random_brightness": 0.1,
    "random_contrast": 0.2,
    "random_saturation": 0.3,
    "random_hue": 10.0,
    "random_rotation": 20.0,
    "random_shear": 10.0,
    "random_quarter_turn": True,
    "vertical_flip": True,
    "random_grey": 0.15,
    "random_gamma": 0.4,
    "random_blur": 1.5,
    "random_noise": 0.05,
    "random_classmix": 0.25,
    "random_cutmix": 0.35,
    "random_cutout": 0.45,
    "augment": "light",
    "crop_size": (32, 64),
    "crop_rare_classes": 0.3,
    "on_bad_example": "replace",
    "max_bad_examples": 3,
    "cache": "disk",
    "cache_dir": "/cache",
    "encoder_alpha": 0.35,
    "encoder_output_stride": 16,
    "init_checkpoint": "runs/other",
    "init_scope": "encoder",
    "image_normalization": "measured",
    "freeze_encoder": False,
    "freeze_encoder_stages": 2,
    "unfreeze_encoder_at": 4,
    "encoder_bn_momentum": 0.9,
    "decoder": "tensorflow_examples",
    "decoder_filters": (16, 8, 4),
    "optimizer": "sgd",
    "learning_rate": 1e-05,
    "encoder_lr_multiplier": 0.1,
    "lr_schedule": "polynomial",
    "polynomial_power": 2.5,
    "warmup_steps": 7,
    "momentum": 0.5,
    "weight_decay": 1e-4,
    "global_clipnorm": 1.5,
    "batch_size": 6,
    "gradient_accumulation_steps": 3,
    "train_epochs": 0,
    "train_steps": 100,
    "steps_per_loop": 3,
    "epochs_between_evals": 2,
    "log_steps": 5,
    "checkpoint_interval": 11,
    "max_to_keep": 2,
    "ema_decay": 0.99,
    "moving_average_warmup": False,
    "loss": "ce+0.5*focal+boundary+tversky",
    "label_smoothing": 0.1,
    "loss_top_k": 0.25,
    "focal_gamma": 1.5,
    "boundary_weight": 8.0,
    "boundary_width": 2,
    "tversky_alpha": 0.4,
    "tversky_beta": 0.6,
    "class_weights": ("0.5", "1", "4"),
    "metrics": ("boundary_iou",),
    "best_metric": "loss",
    "early_stopping_patience": 4,
    "tta": ("flip", "0.75"),
    "stall_timeout": 8,
    "summary_images": 0,
    "summary_histograms": 50,
    "tracker": ("mlflow", "wandb"),
    "keep_golden": False,
    "distribution_strategy": "one_device",
    "num_gpus": 0,
    "virtual_devices": 1,
    "mixed_precision": "bfloat16",
    "enable_xla": True,
}

_OTHERS = {
    # These have no meaning beside those above: another encoder has no --encoder_alpha.
    "encoder": "mobilenet_v2",
    "encoder_weights": "imagenet",
    "decoder_norm": "batch",
    "decoder_dropout": 0.0,
    "encoder_drop_connect": 0.2,
    "label_colors": "",
    "image_key": "image",
    "label_key": "segmentation_mask",
    "startup_timeout": 300,
    "log_level": "info",
    "checkpoint": "last",
    "model": "",
    "merge_classes": (),
    "watch": False,
    "crossfit": False,
    "export_format": ("saved_model",),
    "export_dir": "",
    "export_probabilities": False,
    "export_scores": True,
    "time_budget": "",
    "profile_steps": (),
    "against": "none",
    "benchmark_rounds": 5,
    "benchmark_secs": 3.0,
    "input": "",
    "output": "",
    "save": ("labels",),
    "tile_size": 0,
    "tile_overlap": 0.25,
    "mask_orientation": "shown",
    "max_megapixels": 100.0,
    "overwrite": False,
}

_OF_A_COMMAND = {
    "mode",
    "model_dir",
    "checkpoint",
    "model",
    "merge_classes",
    "watch",
    "crossfit",
    "export_format",
    "export_dir",
    "export_probabilities",
    "export_scores",
    "time_budget",
    "against",
    "benchmark_rounds",
    "benchmark_secs",
    "input",
    "output",
    "save",
    "tile_size",
    "tile_overlap",
    "mask_orientation",
    "max_megapixels",
    "overwrite",
    "log_level",
    "profile_steps",
}
"""What is no property of a run."""


def test_the_unusual_settings_are_all_the_settings_and_none_is_a_default():
    defaults = _make().as_dict()
    same = {name for name, value in _UNUSUAL.items() if defaults[name] == value}
    assert same == set()
    assert {name: defaults[name] for name in defaults.keys() - _UNUSUAL} == _OTHERS


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        (
            "mode",
            "test",
            "use one of train, evaluate, predict, export, train_and_evaluate, "
            "benchmark, doctor, plan, report",
        ),
        ("seed", -1, "must be at least 0"),
        # 2^31 - 1 = 2147483647
        ("seed", 2147483648, "must be at most 2147483647"),
        ("image_size", (7,), "must be at least 8"),
        ("num_classes", 1, "must be at least 2"),
        ("num_classes", 256, "must be at most 255"),
        ("label_offset", -256, "must be at least -255"),
        ("label_offset", 256, "must be at most 255"),
        ("ignore_label", -1, "must be at least 0"),
        ("ignore_label", 65536, "must be at most 65535"),
        ("random_scale", (0.05, 2.0), r"must be at least 0\.1"),
        ("random_scale", (0.5, 11.0), r"must be at most 10\.0"),
        ("random_brightness", -0.1, r"must be at least 0\.0"),
        ("random_brightness", 1.1, r"must be at most 1\.0"),
        ("random_contrast", -0.1, r"must be at least 0\.0"),
        ("random_contrast", 1.1, r"must be at most 1\.0"),
        ("random_saturation", -0.1, r"must be at least 0\.0"),
        ("random_saturation", 1.1, r"must be at most 1\.0"),
        ("random_hue", 181.0, r"must be at most 180\.0"),
        ("random_rotation", -1.0, r"must be at least 0\.0"),
        ("random_rotation", 181.0, r"must be at most 180\.0"),
        ("resize", "fit", "use one of stretch, pad, crop"),
        ("image_channels", 0, "must be at least 1"),
        ("image_range", (0, 65536), "must be at most 65535"),
        ("crop_rare_classes", 1.5, r"must be at most 1\.0"),
        ("on_bad_example", "skip", "use one of stop, replace"),
        ("max_bad_examples", -1, "must be at least 0"),
        ("cache", "ram", "use one of memory, disk, device, none"),
        ("train_fraction", -0.1, r"must be at least 0\.0"),
        ("train_fraction", 1.5, r"must be at most 1\.0"),
        (
            "encoder",
            "vgg",
            "use one of mobilenet_v2, .*, resnet50, .*, plain, keras_hub:PRESET",
        ),
        ("encoder_alpha", 0.0, r"must be at least 0\.1"),
        ("encoder_alpha", 5.0, r"must be at most 4\.0"),
        ("encoder_bn_momentum", -0.1, r"must be at least 0\.0"),
        ("encoder_bn_momentum", 1.1, r"must be at most 1\.0"),
        (
            "decoder",
            "fcn",
            "use one of pix2pix, tensorflow_examples, fpn, unet, unetpp, "
            "deeplabv3plus, segformer",
        ),
        ("decoder_norm", "layer", "use one of batch, group"),
        ("freeze_encoder_stages", -1, "must be at least 0"),
        ("freeze_encoder_stages", 6, "must be at most 5"),
        ("init_scope", "decoder", "use one of all, encoder"),
        ("decoder_filters", (8, 8, 0, 8), "must be at least 1"),
        ("optimizer", "muon", "use one of adam, adamw, sgd, lion"),
        ("learning_rate", -0.1, r"must be at least 0\.0"),
        ("unfreeze_encoder_at", 0, "must be at least 1"),
        ("unfreeze_encoder_at", 100_001, "must be at most 100000"),
        ("encoder_lr_multiplier", 0.0, "must be at least 1e-06"),
        ("encoder_lr_multiplier", 1001.0, r"must be at most 1000\.0"),
        ("lr_schedule", "step", "use one of constant, cosine, polynomial"),
        ("polynomial_power", -1.0, r"must be at least 0\.0"),
        ("warmup_steps", -1, "must be at least 0"),
        ("label_smoothing", -0.1, r"must be at least 0\.0"),
        ("label_smoothing", 1.0, r"must be at most 0\.95"),
        ("loss_top_k", 0.0, r"must be at least 0\.001"),
        ("loss_top_k", 1.5, r"must be at most 1\.0"),
        ("focal_gamma", -0.1, r"must be at least 0\.0"),
        ("focal_gamma", 21.0, r"must be at most 20\.0"),
        ("boundary_weight", 0.5, r"must be at least 1\.0"),
        ("boundary_weight", 1001.0, r"must be at most 1000\.0"),
        ("boundary_width", 0, "must be at least 1"),
        ("boundary_width", 1025, "must be at most 1024"),
        ("tversky_alpha", -0.1, r"must be at least 0\.0"),
        ("tversky_alpha", 101.0, r"must be at most 100\.0"),
        ("tversky_beta", 0.0, r"must be at least 0\.01"),
        ("tversky_beta", 101.0, r"must be at most 100\.0"),
        ("momentum", -0.1, r"must be at least 0\.0"),
        ("momentum", 1.5, r"must be at most 1\.0"),
        ("weight_decay", -0.1, r"must be at least 0\.0"),
        ("global_clipnorm", -1.0, r"must be at least 0\.0"),
        ("batch_size", 0, "must be at least 1"),
        ("gradient_accumulation_steps", 0, "must be at least 1"),
        ("train_epochs", -1, "must be at least 0"),
        ("train_steps", -1, "must be at least 0"),
        ("steps_per_loop", 0, "must be at least 1"),
        ("epochs_between_evals", 0, "must be at least 1"),
        ("log_steps", 0, "must be at least 1"),
        ("checkpoint_interval", -1, "must be at least 0"),
        ("max_to_keep", 0, "must be at least 1"),
        ("summary_images", -1, "must be at least 0"),
        ("summary_histograms", -1, "must be at least 0"),
        ("profile_steps", (0, 5), "must be at least 1"),
        ("profile_steps", (10,), "give the first and the last step .*, such as 10,20"),
        ("profile_steps", (20, 10), "give the first and the last step .*"),
        ("profile_steps", (1, 2, 3), "give the first and the last step .*"),
        ("profile_steps", (1, 1001), "trace at most 1000 steps"),
        ("tracker", ("sacred",), "'sacred' is no tracker; use mlflow, wandb"),
        ("tracker", ("wandb", "wandb"), "wandb is there twice"),
        (
            "distribution_strategy",
            "horovod",
            "use one of mirrored, one_device, multi_worker_mirrored",
        ),
        (
            "distribution_strategy",
            "tpu",
            "TPUs would need tf.distribute.TPUStrategy, a training loop that XLA .*; "
            "use one of mirrored, one_device, multi_worker_mirrored",
        ),
        ("num_gpus", -2, "must be at least -1"),
        ("virtual_devices", -1, "must be at least 0"),
        (
            "mixed_precision",
            "float64",
            "use one of auto, float32, bfloat16, float16",
        ),
    ],
)
def test_value_out_of_bounds_is_named_with_its_rule(name, value, rule):
    shown = fields.format_value(value)
    with pytest.raises(errors.ConfigError, match=rf"^--{name}={shown}: {rule}\.$"):
        _make(**{name: value})


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "global_clipnorm"])
def test_number_that_is_not_finite_is_rejected(name, value):
    with pytest.raises(errors.ConfigError, match=f"^--{name}={value}: must be finite"):
        _make(optimizer="sgd", **{name: float(value)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_dir": ""}, r"^--model_dir is empty; .* e\.g\. --model_dir=runs/first"),
        (
            {"dataset": "pets"},
            r"^--dataset=pets: use synthetic, folder, coco, labelme or tfds",
        ),
        (
            {"dataset": "tfds"},
            r"^--dataset=tfds: use synthetic, folder, coco, labelme or tfds",
        ),
        (
            {"dataset": "tfds:"},
            r"^--dataset=tfds:: use synthetic, folder, coco, labelme or tfds",
        ),
        (
            {"dataset": "synthetic:3"},
            r"^--dataset=synthetic:3: use synthetic, folder, coco, labelme or tfds",
        ),
        ({"dataset": "folder"}, "^--dataset=folder: name the folder with --data_dir"),
        (
            {"dataset": "folder", "images": "/photos/*.jpg", "masks": "labels/*.png"},
            "^--dataset=folder: name the folder with --data_dir",
        ),
        (
            {"dataset": "folder", "data_dir": "d", "masks": "labels/*.png"},
            "^--images=: give --images and --masks, or neither",
        ),
        (
            {"dataset": "folder", "images": "/a/{split}/*", "masks": "/b/*"},
            r"^--images=/a/{split}/\*: --masks must have {split} if this has",
        ),
        (
            {"dataset": "folder", "data_dir": "d", "train_fraction": 1.0},
            r"^--train_fraction=1\.0: must leave something for both sides, e\.g\. 0\.8",
        ),
        (
            {"images": "*.jpg"},
            r"^--images=\*\.jpg: it has a meaning only with --dataset=folder, and here "
            r"is --dataset=synthetic\.$",
        ),
        ({"masks": "*.png"}, r"^--masks=\*\.png: .* only with --dataset=folder"),
        ({"train_fraction": 0.5}, r"^--train_fraction=0\.5: .* --dataset=folder"),
        (
            {"resize": "crop", "eval_native_size": True},
            r"^--eval_native_size=true: .*--resize=stretch or pad.*--resize=crop",
        ),
        *(
            ({"class_weights": weights}, r"^--class_weights=.*: use balanced, inverse")
            for weights in (
                ("median",),
                ("balanced", "1"),
                ("1", "-1"),
                ("0", "0"),
                ("nan", "1"),
                ("inf", "1"),
                ("1", ""),
            )
        ),
        ({"loss": ""}, r"^--loss=: '' is no loss; use one of ce, focal, .*, or a wei"),
        ({"loss": "ce+fokal"}, r"^--loss=ce\+fokal: 'fokal' is no loss; use one of ce"),
        ({"loss": "ce+2*ce"}, r"^--loss=ce\+2\*ce: ce is there twice; give it one"),
        *(
            (
                {"loss": f"ce+{weight}*dice"},
                rf"^--loss=.*: '{weight}' is no weight of dice; use a number above 0",
            )
            for weight in ("0", "-1", "nan", "inf", "half", "")
        ),
        (
            {"mode": "benchmark", "against": "fit", "loss": "dice"},
            "^--loss=dice: --against=fit times .* leave one of the two out",
        ),
        (
            {"metrics": ("iou",)},
            r"^--metrics=iou: 'iou' is no metric; use boundary_iou, calibration, ima",
        ),
        ({"metrics": ("boundary_iou",) * 2}, r"^--metrics=.*: boundary_iou is there t"),
        *(
            (
                {"tta": (word,)},
                rf"^--tta={word}: '{word}' is neither flip nor a scale; .* 0\.25 to 4",
            )
            for word in ("flop", "0", "9", "nan", "")
        ),
        (
            {"tta": ("flip", "1.0")},
            r"^--tta=flip,1\.0: '1\.0' is the size of the image",
        ),
        *(
            (
                {"merge_classes": (word,)},
                rf"^--merge_classes={re.escape(word)}: '.*' is no group of classes; wr",
            )
            for word in ("a", "a=", "=b+c", "a=b+", "a=+b")
        ),
        (
            {"merge_classes": ("a=b+c", "a=d+e")},
            r"^--merge_classes=a=b\+c,a=d\+e: the group a is there twice; name one oth",
        ),
        (
            {"merge_classes": ("a=b+c", "d=e+c")},
            "^--merge_classes=.*: the class c is there twice; leave one out",
        ),
        ({"tta": ("flip", "flip")}, "^--tta=flip,flip: flip is there twice; leave one"),
        ({"tta": ("0.5", ".50")}, r"^--tta=0\.5,\.50: \.50 is there twice; leave one "),
        (
            {"label_colors": "voc"},
            "^--label_colors=voc: .* only with --dataset=folder or tfds",
        ),
        (
            {"dataset": "tfds:a", "label_colors": "voc", "label_offset": -1},
            "^--label_offset=-1: it has no meaning beside --label_colors=voc",
        ),
        (
            {"dataset": "tfds:a", "label_colors": "voc", "ignore_label": 0},
            "^--ignore_label=0: it has no meaning beside --label_colors=voc",
        ),
        (
            {"image_size": (32, 32, 32)},
            r"^--image_size=32,32,32: give HEIGHT or HEIGHT,WIDTH\.$",
        ),
        (
            {"image_range": (4095, 0)},
            r"^--image_range=4095,0: give LOW,HIGH, the lower number first",
        ),
        ({"image_range": (9,)}, r"^--image_range=9: give LOW,HIGH"),
        ({"image_size": ()}, r"^--image_size=: give HEIGHT or HEIGHT,WIDTH\.$"),
        ({"crop_size": (8, 8, 8)}, r"^--crop_size=8,8,8: give HEIGHT or HEIGHT,WIDTH"),
        (
            {"crop_size": (64,), "image_size": (96, 48)},
            r"^--crop_size=64,64: a window lies within --image_size=96,48; use a sm",
        ),
        (
            {"random_scale": (2.0,)},
            r"^--random_scale=2\.0: give LOW,HIGH with LOW not above HIGH, e\.g\. ",
        ),
        (
            {"random_scale": (0.5, 1.0, 2.0)},
            r"^--random_scale=0\.5,1\.0,2\.0: give LOW,HIGH with LOW not above HIGH",
        ),
        (
            {"random_scale": (2.0, 0.5)},
            r"^--random_scale=2\.0,0\.5: give LOW,HIGH with LOW not above HIGH",
        ),
        (
            {"class_names": ("cat", "cat")},
            r"^--class_names=cat,cat: give each class a name of its own\.$",
        ),
        (
            {"class_names": ("cat", "")},
            r"^--class_names=cat,: give each class a name of its own\.$",
        ),
        ({"class_names": ()}, r"^--class_names=: name 2 to 255 classes\.$"),
        ({"class_names": ("cat",)}, r"^--class_names=cat: name 2 to 255 classes\.$"),
        (
            {"class_names": ("cat", "dog"), "num_classes": 3},
            r"^--class_names=cat,dog: these are 2 names, but --num_classes=3; make the "
            r"two agree or leave --num_classes out\.$",
        ),
        (
            {"decoder_filters": (64, 32)},
            r"^--decoder_filters=64,32: --decoder=pix2pix on --encoder=mobilenet_v2 "
            r"takes 4 numbers, such as --decoder_filters=512,256,128,64\.$",
        ),
        (
            {"decoder": "fpn", "decoder_filters": (64, 32)},
            r"^--decoder_filters=64,32: --decoder=fpn on --encoder=mobilenet_v2 takes "
            r"1 number, such as --decoder_filters=128\.$",
        ),
        (
            {"encoder": "resnet50", "encoder_alpha": 0.5},
            r"^--encoder_alpha=0\.5: .* only with --encoder=mobilenet_v2 or .* plain",
        ),
        (
            {"decoder": "tensorflow_examples", "decoder_dropout": 0.5},
            r"^--decoder_dropout=0\.5: .* only with --decoder=pix2pix or fpn or .*, "
            "and here is --decoder=tensorflow_examples",
        ),
        (
            {"decoder": "tensorflow_examples", "decoder_norm": "group"},
            r"^--decoder_norm=group: .* only with --decoder=pix2pix or fpn or .*, "
            "and here is --decoder=tensorflow_examples",
        ),
        (
            {"encoder_weights": "none"},
            r"^--freeze_encoder with --encoder_weights=none .*; use --nofreeze_encoder",
        ),
        (
            {"encoder_lr_multiplier": 0.1},
            r"^--encoder_lr_multiplier=0\.1: .* only with --freeze_encoder=false, and",
        ),
        (
            {"freeze_encoder_stages": 1},
            r"^--freeze_encoder_stages=1: .* only with --freeze_encoder=false, and",
        ),
        (
            {
                "freeze_encoder": False,
                "freeze_encoder_stages": 1,
                "encoder_weights": "none",
            },
            "^--freeze_encoder_stages=1: with --encoder_weights=none these would .*; "
            "leave one of the two out",
        ),
        (
            {
                "unfreeze_encoder_at": 5,
                "freeze_encoder": False,
                "time_budget": "30m",
                "train_epochs": 0,
            },
            "^--time_budget=30m: .* those after --unfreeze_encoder_at=5 take longer",
        ),
        (
            {"unfreeze_encoder_at": 5},
            r"^--unfreeze_encoder_at=5: .* only with --freeze_encoder=false, and",
        ),
        (
            {
                "freeze_encoder": False,
                "unfreeze_encoder_at": 5,
                "encoder_weights": "none",
            },
            "^--unfreeze_encoder_at=5: with --encoder_weights=none the decoder would "
            "be trained on what a random encoder gives; leave one of the two out",
        ),
        (
            {
                "freeze_encoder": False,
                "freeze_encoder_stages": 4,
                "encoder": "convnext_tiny",
            },
            "^--freeze_encoder_stages=4: --encoder=convnext_tiny has 4 feature maps, "
            "so that this is --freeze_encoder; use that, or a smaller number",
        ),
        (
            {"optimizer": "adam", "weight_decay": 0.01},
            r"^--weight_decay=0\.01: .* only with --optimizer=adamw or sgd or lion",
        ),
        (
            {"train_epochs": 3, "train_steps": 40},
            r"^--train_epochs=3 and --train_steps=40 .*; set one of them to 0\.$",
        ),
        (
            {"time_budget": "30m", "train_epochs": 3},
            r"^--time_budget=30m and --train_epochs=3 both .*; leave one of them out",
        ),
        (
            {"dataset": "labelme"},
            "^--dataset=labelme: name the folder with --data_dir",
        ),
        (
            {"dataset": "coco", "data_dir": "d", "train_fraction": 1.0},
            "^--train_fraction=1.0: must leave something for both sides",
        ),
        (
            {"time_budget": "30m", "train_steps": 40},
            r"^--time_budget=30m and --train_steps=40 both .*; leave one of them out",
        ),
        (
            {"time_budget": "30"},
            r"^--time_budget=30: give hours, .* e\.g\. 90s, 30m or 1h30m, 30m for min",
        ),
        (
            {"train_steps": 0},
            r"^--train_epochs and --train_steps leave nothing to train; give one .* 1",
        ),
        (
            {"train_epochs": 0, "train_steps": 0},
            r"^--train_epochs and --train_steps leave nothing to train; give one .* 1",
        ),
        (
            {"distribution_strategy": "one_device", "num_gpus": 2},
            r"^--num_gpus=2: --distribution_strategy=one_device uses one; use mirrored",
        ),
        (
            {"distribution_strategy": "one_device", "virtual_devices": 2},
            "^--virtual_devices=2: --distribution_strategy=one_device uses one; use mi",
        ),
        (
            {"distribution_strategy": "multi_worker_mirrored", "num_gpus": 2},
            "^--num_gpus=2: .* set CUDA_VISIBLE_DEVICES for each worker",
        ),
    ],
)
def test_contradiction_is_found_when_the_config_is_made(settings, message):
    with pytest.raises(errors.ConfigError, match=message):
        _make(**settings)


def test_absolute_patterns_need_no_folder():
    data = _make(dataset="folder", images="/a/*.jpg", masks="/b/*.png").data
    assert (data.images, data.masks) == ("/a/*.jpg", "/b/*.png")


def test_one_class_name_may_be_a_file_of_names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("sky\ntree\n")
    assert _make(class_names=(str(path),)).data.class_names == (str(path),)


def test_one_side_means_a_square():
    assert _make(image_size=(96,)).data.image_size == (96, 96)


@pytest.mark.parametrize(
    ("settings", "epochs", "steps"),
    [
        ({}, 20, None),
        ({"train_epochs": 3}, 3, None),
        ({"train_steps": 40}, None, 40),
        ({"train_epochs": 3, "train_steps": 0}, 3, 0),
        ({"train_epochs": 0, "train_steps": 40}, 0, 40),
        ({"time_budget": "30m"}, None, None),
    ],
)
def test_twenty_epochs_unless_a_length_is_given(settings, epochs, steps):
    train = _make(**settings).train
    assert (train.train_epochs, train.train_steps) == (epochs, steps)


@pytest.mark.parametrize("settings", [{}, _UNUSUAL], ids=["defaults", "unusual"])
def test_flagfile_gives_an_equal_config(settings, tmp_path):
    original = _make(**settings)
    path = tmp_path / "config.flags"
    path.write_text(original.to_flagfile())
    typed = (f"--mode={original.run.mode}", f"--model_dir={original.run.model_dir}")
    assert _parse(f"--flagfile={path}", *typed) == original


def test_flagfile_has_one_line_for_each_setting_that_is_not_none():
    lines = _make(train_epochs=3).to_flagfile().splitlines()
    assert "--image_size=128,128" in lines
    assert "--freeze_encoder=true" in lines
    assert not any(line.startswith("--train_steps") for line in lines)


def test_saved_settings_are_those_of_the_run_that_have_a_meaning():
    saved = _make(**_UNUSUAL).saved()
    assert {n for n, v in saved.items() if v != _OTHERS.get(n)} == (
        _UNUSUAL.keys() - _OF_A_COMMAND
    )
    # Colours are possible, dropout in that decoder is not.
    assert saved.keys() - _UNUSUAL == {"encoder", "label_colors"}
    assert saved["image_size"] == [64, 96]


def test_a_decoder_gets_the_settings_that_it_takes():
    settings = {"decoder_norm": "group", "decoder_dropout": 0.1}
    model = _make(decoder="unet", **settings).model
    assert model.decoder_options() == {"norm": "group", "dropout": 0.1}
    assert _make(decoder="tensorflow_examples").model.decoder_options() == {}


def test_every_whole_number_has_bounds():
    unbounded = [
        name
        for name, field in config.fields_by_name().items()
        if fields.value_type(field)[0] is int
        and None in (field.metadata["minimum"], field.metadata["maximum"])
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "rate"),
    [
        ("adam", 64, 1e-3),
        ("adamw", 16, 5e-4),
        ("adam", 24, 6.12e-4),
        ("lion", 64, 1e-4),
        ("sgd", 32, 0.02),
    ],
)
def test_learning_rate_follows_optimizer_and_batch(optimizer, batch_size, rate):
    made = _make(optimizer=optimizer, batch_size=batch_size)
    assert made.optimizer.learning_rate == rate
    assert made.saved()["learning_rate"] == rate
    given = _make(optimizer=optimizer, batch_size=batch_size, learning_rate=0.5)
    assert given.optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    ("name", "value"), [("train_epochs", 10**21), ("train_steps", 10**9)]
)
def test_number_that_nobody_can_mean_is_rejected(name, value):
    with pytest.raises(errors.ConfigError, match=f"--{name}={value}: must be at most"):
        _make(**{name: value})


@pytest.mark.parametrize(
    "name",
    [
        "seed",
        "batch_size",
        "dataset",
        "image_size",
        *augmentation_registry.CHANGES,
        "crop_rare_classes",
        "freeze_encoder_stages",
        "unfreeze_encoder_at",
        "optimizer",
    ],
)
def test_identity_holds_what_a_model_dir_cannot_change(name):
    assert name in _make().identity()


@pytest.mark.parametrize(
    "name",
    [
        "learning_rate",
        "encoder_lr_multiplier",
        "init_checkpoint",
        "init_scope",
        "mode",
        "model_dir",
        "train_epochs",
        "train_steps",
        "mixed_precision",
        "distribution_strategy",
        "num_gpus",
        "data_dir",
        "cache",
        "log_steps",
    ],
)
def test_identity_leaves_out_what_may_change_between_starts(name):
    assert name not in _make().identity()


def test_identity_is_as_json_gives_it_back():
    identity = _make(**_UNUSUAL).identity()
    assert json.loads(json.dumps(identity)) == identity


def test_configs_with_equal_settings_are_equal():
    assert _make(batch_size=32) == _make(batch_size=32)


def test_configs_with_another_setting_differ():
    assert _make(batch_size=32) != _make(batch_size=16)


def test_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError, match="batch_size"):
        _make().train.batch_size = 1


def test_from_dict_names_what_is_no_setting():
    with pytest.raises(KeyError, match="not settings: bath_size, sed"):
        _make(sed=1, bath_size=2)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 16},  # The learning rate follows it.
        {"encoder": "plain", "encoder_weights": "none", "freeze_encoder": False},
        {"augment": "strong", "image_size": (96, 96), "train_steps": 3},
        {"time_budget": "9m", "learning_rate": 0.5, "random_hue": 3.0},
    ],
)
def test_given_is_what_makes_the_settings_what_they_are(settings):
    given = {"model_dir": "runs/a", **settings}
    assert _make(**settings).given() == given


def test_from_dict_undoes_as_dict():
    original = _make(**_UNUSUAL)
    assert config.from_dict(original.as_dict()) == original


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        (True, "true"),
        (False, "false"),
        ((64, 96), "64,96"),
        ((), ""),
        (1e-05, "1e-05"),
        ("a b", "a b"),
    ],
)
def test_format_value_is_what_a_user_would_type(value, typed):
    assert fields.format_value(value) == typed
