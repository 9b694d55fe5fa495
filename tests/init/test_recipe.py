"""What `ens init` chooses: networks, schedule, rates, what is done about uneven classes; and the file that says so."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ensemble.config import load_config, train_settings
from ensemble.errors import UserError
from ensemble.init import Options, init
from ensemble.init.networks import CPU, LARGE, LIGHT, SMALL, Backbone, family_keys, hub_networks
from ensemble.init.recipe import Recipe, choose_cpu_schedule, choose_recipe, training_hours, training_time

SHARED = Path(__file__).parents[3] / "shared"
OPTIONS = [Options(machine, effort) for machine in ("cpu", "gpu") for effort in ("usual", "fast", "best")]


@pytest.fixture
def images(tmp_path, monkeypatch):
    """images(a=3, b=2): a folder of class folders, with so many images of 300 px."""
    monkeypatch.chdir(tmp_path)

    def make(**counts):
        for name, count in counts.items():
            (tmp_path / "d" / name).mkdir(parents=True)
            for number in range(count):
                colours = ((number, ord(name), 0), (255 - number, 9, ord(name)))
                picture = Image.new("RGB", (300, 300), colours[0])
                picture.paste(colours[1], (number, 0, 150, 300))
                picture.save(tmp_path / "d" / name / f"{number}.png")
        return tmp_path / "d"

    return make


def weights(folder, *files, architecture=True):
    """Weights files that say which architecture they are, "resnet18.mine": resnet18."""
    folder.mkdir(exist_ok=True)
    for file in files:
        config = json.dumps({"architecture": file.partition(".")[0]})
        save_file({"x": torch.zeros(1)}, folder / f"{file}.safetensors", {"config": config} if architecture else None)
    return folder


def recipe_for(counts, **options):
    machine = options.pop("machine", "cpu")
    return choose_recipe(machine, Options(machine, **options), np.full(10, 300), np.array(counts))


def keys(recipe):
    return {key: value for key, value, _ in recipe.train}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_live_key_has_a_comment_and_every_commented_key_works(tmp_path, images, options):
    init(images(a=5, b=5), None, None, tmp_path / "e.toml", options=options)
    text = (tmp_path / "e.toml").read_text(encoding="utf-8")
    settings, backbones = text.split("# Networks of different kinds")
    rows = settings.splitlines()
    for above, row in pairwise(rows):
        assert len(row) <= 120, row
        if " = " in row and not row.startswith("#"):
            assert "  # " in row or above.startswith("# "), row
    switched = [row.removeprefix("# ") if row.startswith("# ") and "  # " in row else row for row in rows]
    (tmp_path / "on.toml").write_text("\n".join([*switched, f"# Networks{backbones}"]), encoding="utf-8")
    config = load_config(tmp_path / "on.toml")
    assert config.data.crop == (350, 350) and config.tta.batch_size == 64
    assert len(config.backbone) == {"usual": 4 if options.machine == "cpu" else 3, "fast": 4, "best": 5}[options.effort]


@pytest.mark.parametrize("image_size", [96, 160, 224, 288])
def test_networks_exist_with_weights_in_timm(image_size):
    import timm

    known = set(timm.list_pretrained())
    for options in OPTIONS:
        chosen = hub_networks(options.machine, options.effort, image_size)
        assert {backbone.timm for backbone in chosen} <= known
        assert len({backbone.name for backbone in chosen}) == len(chosen) >= 3
        assert image_size >= 224 or "swin" not in [each.name for each in chosen]
    assert all(name in timm.list_models() for name in LIGHT)


def test_what_is_chosen_for_a_cpu(tmp_path, images):
    said = init(images(a=5, b=5), None, None, tmp_path / "e.toml", options=Options("cpu"))
    names = "efficientnet_lite2, efficientnet_lite0, mobilenetv4, mobilenetv3"
    assert any(line.startswith(f"chosen for a CPU, as --for says: {names} at 192 px, 30 epochs; ") for line in said)
    config = load_config(tmp_path / "e.toml")
    train = config.train
    assert config.data.image_size == 192 and (train.strategy, train.stages) == ("partial", 4)
    assert (train.lr, train.head_lr, train.freeze_bn) == (2e-4, 5, True)
    assert choose_cpu_schedule(1698) == (6, 32)
    rows = [100, 500, 1000, 2000, 20_000, 1_000_000]
    assert [choose_cpu_schedule(count)[0] for count in rows] == [30, 15, 9, 6, 4, 2]


def test_on_a_gpu_each_family_has_its_own_rates(tmp_path, images):
    init(images(a=5, b=5), None, None, tmp_path / "e.toml", options=Options("gpu"))
    config = load_config(tmp_path / "e.toml")
    assert config.data.image_size == 224 and config.train.strategy is None and config.train.epochs == 30
    rates = {each.name: train_settings(config, each) for each in config.backbone}
    assert {name: (train.lr, train.layer_decay, train.drop_path) for name, train in rates.items()} == {
        "convnext": (1e-4, 0.9, 0.1),
        "swin": (1e-4, 0.9, 0.1),
        "efficientnet": (3e-4, 1.0, 0.0),
    }
    assert all(train.strategy == "full" and train.head_lr == 5 for train in rates.values())
    for name in (
        "vit_base_patch16_dinov3",
        "eva02_base_patch14_448",
        "beitv2_base_patch16_224",
        "deit3_small_patch16_224",
    ):
        assert dict(family_keys(name)) == {"lr": 5e-5, "layer_decay": 0.75, "drop_path": 0.1}
    assert family_keys("swinv2_tiny_window8_256")[0] == ("lr", 1e-4) and family_keys("resnet50") == ()
    assert max(value for each in (*SMALL, *LARGE) for key, value in family_keys(each.timm) if key == "lr") < 1e-3


def test_fast_probes_and_best_trains_more_for_longer():
    usual, fast, best = (recipe_for([850, 848], effort=effort) for effort in ("usual", "fast", "best"))
    assert keys(fast) == {"strategy": "probe"} and (fast.epochs, fast.image_size) == (0, 224)
    assert fast.describe() == "efficientnet_lite2, efficientnet_lite0, mobilenetv4, mobilenetv3 at 224 px, as probes"
    assert (usual.epochs, usual.image_size, len(usual.backbones)) == (6, 192, 4)
    assert (best.epochs, best.image_size, len(best.backbones)) == (9, 224, 5) and best.backbones == CPU
    large = recipe_for([850, 848], machine="gpu", effort="best")
    assert large.epochs == 22 and [each.name for each in large.backbones][:3] == ["convnext", "vit", "siglip"]
    frozen = recipe_for([850, 848], machine="gpu", effort="fast")
    assert all(each.train == () for each in frozen.backbones) and len(frozen.backbones) == 4


@pytest.mark.parametrize(("side", "size"), [(227, 192), (256, 224), (600, 288)])
def test_best_takes_larger_squares_where_the_files_are_larger(side, size):
    options = Options("cpu", "best")
    recipe = choose_recipe("cpu", options, np.full(10, side), np.array([850, 848]))
    assert recipe.image_size == size and ("at 224 the files would be enlarged" in recipe.why_size) == (size == 192)


def test_fast_and_best_exclude_each_other(tmp_path, images, monkeypatch, capfd):
    from ensemble.cli import main

    data = images(a=5, b=5)
    monkeypatch.setattr("sys.argv", ["ens", "init", str(data), "--fast", "--best"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "--fast and --best exclude each other: choose one" in capfd.readouterr().err
    monkeypatch.setattr("sys.argv", ["ens", "init", str(data), "--fast", "--for", "cpu"])
    main()
    assert load_config(tmp_path / "experiment.toml").train.strategy == "probe"


@pytest.mark.parametrize(("counts", "loss"), [([100, 10], "class_balanced"), ([100, 11], "cross_entropy")])
@pytest.mark.parametrize("machine", ["cpu", "gpu"])
def test_ten_times_as_many_images_are_answered(counts, loss, machine):
    recipe = recipe_for(counts, machine=machine)
    assert keys(recipe).get("loss", "cross_entropy") == loss
    if loss != "cross_entropy":
        comment = next(comment for key, _, comment in recipe.train if key == "loss")
        assert "the largest class has 10 times the images of the smallest" in comment
    fast = recipe_for(counts, machine=machine, effort="fast")
    assert "loss" not in keys(fast)  # probes have none to choose
    for notes in (recipe.notes, fast.notes):
        assert [note for note in notes if "--priors uniform" in note] == list(notes)
        assert bool(notes) == (loss != "cross_entropy")


def test_an_uneven_folder_gets_the_loss_in_its_file(tmp_path, images):
    init(images(a=50, b=5), None, None, tmp_path / "e.toml", options=Options("cpu"))
    assert load_config(tmp_path / "e.toml").train.loss == "class_balanced"


def test_hours_of_training_by_hand():
    """1,700 rows in 5 folds are 1,360 images in each of 5 jobs: 6 epochs of lite0 at 33 images/s on 2 cores."""
    lite0 = Backbone("a", "tf_efficientnet_lite0.in1k", "")
    recipe = Recipe(192, "", (("epochs", 6, ""),), (lite0,), tiny=False)
    assert training_hours(recipe, 1700, 5, 2) == pytest.approx(1360 * 5 * 6 / 33 / 2 / 3600)
    larger = Recipe(384, "", (("epochs", 6, ""),), (lite0, lite0), tiny=False)
    assert training_hours(larger, 1700, 5, 2) == pytest.approx(8 * 1360 * 5 * 6 / 33 / 2 / 3600)
    assert training_hours(Recipe(192, "", (), (lite0,), tiny=False), 1700, 5, 2) is None
    unknown = Backbone("b", "resnet18.a1_in1k", "")
    assert training_hours(Recipe(192, "", (("epochs", 6, ""),), (lite0, unknown), tiny=False), 1700, 5, 2) is None


def test_sizes_and_epochs_are_named_for_each_network_where_they_differ():
    usual, larger = Backbone("a", "a", ""), Backbone("b", "b", "", train=(("epochs", 9),), image_size=224)
    train = (("epochs", 6, ""),)
    assert Recipe(192, "", train, (usual, usual), tiny=False).describe() == "a, a at 192 px, 6 epochs"
    described = Recipe(192, "", train, (usual, larger), tiny=False).describe()
    assert described == "a (192 px, 6 epochs), b (224 px, 9 epochs)"


def test_a_time_longer_than_a_night_names_fast():
    lite0 = Backbone("a", "tf_efficientnet_lite0.in1k", "")
    recipe = Recipe(192, "", (("epochs", 6, ""),), (lite0,), tiny=False)
    assert training_time(recipe, "cpu", 1700, 5, 2).startswith("on 2 cores about 10 minutes, which ")
    assert training_time(recipe, "cpu", 34, 5, 2).startswith("on 2 cores about 1 minute, which ")
    assert "--fast" not in training_time(recipe, "cpu", 1700, 5, 2)
    assert training_time(recipe, "cpu", 170_000, 5, 2).endswith(
        "; --fast trains classifiers on frozen networks instead"
    )
    assert "hours" not in training_time(recipe, "gpu", 170_000, 5, 2)


# ---- a folder of weights -------------------------------------------------------------------------------------------


def test_a_cpu_takes_the_light_networks_that_were_measured_first(tmp_path):
    folder = weights(
        tmp_path / "w", "resnet18.a", "convnext_tiny.b", "mobilenetv2_050.c", "tf_efficientnet_lite2.d", "test_vit.e"
    )
    recipe = recipe_for([100, 100], weights_dir=folder)
    assert [each.timm.partition(".")[0] for each in recipe.backbones] == [
        "tf_efficientnet_lite2",
        "mobilenetv2_050",
        "test_vit",
    ]  # with more than 10 million parameters, the other two are left out
    assert recipe.backbones[0].weights == folder / "tf_efficientnet_lite2.d.safetensors"
    assert recipe.backbones[2].kind.endswith("million parameters") and recipe.backbones[2].train == ()
    assert "5 weights files; taken: tf_efficientnet_lite2.d.safetensors, mobilenetv2_050.c" in recipe.notes[-2]
    assert "not taken: convnext_tiny.b.safetensors, resnet18.a.safetensors; ens scout" in recipe.notes[-1]


def test_a_gpu_takes_the_largest_of_each_family_first(tmp_path):
    folder = weights(tmp_path / "w", "resnet18.a", "resnet34.b", "convnext_tiny.c", "vit_tiny_patch16_224.d")
    recipe = recipe_for([100, 100], weights_dir=folder, machine="gpu")
    assert [each.name for each in recipe.backbones] == ["convnext_tiny", "resnet34", "vit_tiny_patch16_224", "resnet18"]
    assert [dict(each.train).get("lr") for each in recipe.backbones] == [1e-4, None, 5e-5, None]


def test_one_file_of_each_architecture_and_the_smallest_where_all_are_large(tmp_path):
    folder = weights(tmp_path / "w", "resnet50.b", "resnet50.a", "resnet34.z")
    recipe = recipe_for([100, 100], weights_dir=folder)
    assert [each.weights.name for each in recipe.backbones] == ["resnet34.z.safetensors"]
    recipe = recipe_for([100, 100], weights_dir=folder, machine="gpu")
    assert [each.weights.name for each in recipe.backbones] == ["resnet50.a.safetensors", "resnet34.z.safetensors"]


def test_the_files_written_are_read_and_an_empty_folder_is_one_line(tmp_path, images):
    folder = weights(tmp_path / "my weights", "test_resnet.x", "test_vit.y")
    data = images(a=5, b=5)
    said = init(data, None, None, tmp_path / "e.toml", options=Options("cpu", weights_dir=folder))
    config = load_config(tmp_path / "e.toml")
    assert {each.weights for each in config.backbone} == set(folder.iterdir())
    assert any("2 weights files; taken: " in line for line in said)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="0 weights files in it, none of which ens recognises"):
        init(data, None, None, tmp_path / "f.toml", options=Options("cpu", weights_dir=tmp_path / "empty"))
    assert not (tmp_path / "f.toml").exists()


@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no folder of real weights beside the checkout")
def test_the_shared_weights():
    recipe = recipe_for([850, 848], weights_dir=SHARED / "weights")
    names = [each.name for each in recipe.backbones]
    assert names == [
        "tf_efficientnet_lite2",
        "mobilenet_edgetpu_100",
        "tf_efficientnet_lite0",
        "tf_mobilenetv3_large_minimal_100",
    ]
    hours = training_hours(recipe, 1698, 5, 2)
    assert hours is not None and hours < 1
