import dataclasses

import pytest
import yaml

from lib.config import Config, Dataset, differences, dump_config, find_dataroot, flatten, load_config, parse_config
from tests.conftest import PROJECT

OFFICIAL_MONODLE = """
random_seed: 444

dataset:
  type: &dataset_type 'kitti'
  root_dir: '../../data/'
  batch_size: 16
  use_3d_center: True
  class_merging: False
  use_dontcare: False
  bbox2d_type: 'anno'
  meanshape: False
  writelist: ['Car']
  random_flip: 0.5
  random_crop: 0.5
  scale: 0.4
  shift: 0.1
model:
  type: 'centernet3d'
  backbone: 'dla34'
  neck: 'DLAUp'
  num_class: 3
optimizer:
  type: 'adam'
  lr: 0.00125
  weight_decay: 0.00001
lr_scheduler:
  warmup: True
  decay_rate: 0.1
  decay_list: [90, 120]
trainer:
  max_epoch: 140
  gpu_ids: 0, 1
  save_frequency: 10
tester:
  type: *dataset_type
  mode: single
  checkpoint: 'checkpoints/checkpoint_epoch_140.pth'
  checkpoints_dir: 'checkpoints'
  threshold: 0.2
"""


def write(tmp_path, text):
    path = tmp_path / "my_run.yaml"
    path.write_text(text)
    return path


def test_official_monodle_file_loads(tmp_path):
    config = load_config(write(tmp_path, OFFICIAL_MONODLE))
    assert config.general.random_seed == 444
    assert config.general.dataroot == "../../data/"
    assert config.general.exp_name == "my_run"
    assert not config.general.qi and not config.general.obj_depth
    assert config.trainer.gpu_ids == (0, 1)
    assert config.optimizer.weight_decay == 1e-5
    assert find_dataroot(config) == PROJECT / "data" / "KITTI"


def test_official_ddml_section_loads(tmp_path):
    general = "general: {random_seed: 444, K: 1.5, B: 0.5, rad: 10, qi: True, obj_depth: True, dataroot: d}\n"
    rest = OFFICIAL_MONODLE.replace("random_seed: 444", "").replace("root_dir", "#")
    config = load_config(write(tmp_path, general + rest))
    assert (config.general.K, config.general.B, config.general.rad) == (1.5, 0.5, 10.0)
    assert config.general.qi and config.general.obj_depth
    assert (config.general.T, config.losses.quasi_isometric, config.general.qi_lower_bound) == (10.0, 1.0, "official")


# arms.yaml holds changes to experiments
EXPERIMENTS = sorted(p for p in (PROJECT / "experiments").rglob("*.yaml") if p.name != "arms.yaml")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.name)
def test_shipped_experiments_load(path):
    config = load_config(path)
    assert parse_config(dump_config(config)) == config
    assert parse_config(yaml.safe_load(yaml.safe_dump(dump_config(config)))) == config


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().dataset.batch_size = 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: {batchsize: 3}", "unknown key dataset.batchsize; did you mean 'batch_size'?"),
        ("datset: {}", "unknown section 'datset'; did you mean 'dataset'?"),
        ("dataset: {batch_size: many}", "dataset.batch_size must be a whole number, got 'many'"),
        ("dataset: {batch_size: true}", "dataset.batch_size must be a whole number, got True"),
        ("dataset: {batch_size: 0}", "dataset.batch_size must be >= 1, got 0"),
        ("dataset: {writelist: [Cra]}", "did you mean 'Car'?"),
        ("dataset: {writelist: []}", "dataset.writelist"),
        ("dataset: {bbox2d_type: annot}", "did you mean 'anno'?"),
        ("dataset: {resolution: [1280, 380]}", "multiples of 32"),
        ("dataset: {train_split: ../val}", "dataset.train_split must be the name of a list in ImageSets without .txt"),
        ("dataset: {train_split: test}", "dataset.train_split must be a list of frames with labels, got 'test'"),
        ("tester: {split: val.txt}", "tester.split must be the name of a list"),
        ("tester: {split: ''}", "tester.split must be the name of a list"),
        ("dataset: {random_flip: 1.5}", "dataset.random_flip must be a probability"),
        ("optimizer: {lr: .nan}", "optimizer.lr must be finite"),
        ("optimizer: {type: adm}", "did you mean 'adam'?"),
        ("trainer: {gpu_ids: '0, x'}", "trainer.gpu_ids must be a whole number, got 'x'"),
        ("tester: {images: -1}", "tester.images must be >= 0, got -1"),
        ("trainer: {report: 1}", "trainer.report must be true or false, got 1"),
        ("trainer: {amp: fp8}", "trainer.amp must be false or 'bf16', got 'fp8'"),
        ("general: {K: 0.5}", "general.K must be >= 1"),
        ("general: {qi: 'yes please'}", "general.qi must be true or false"),
        ("general: {exp_name: ../../etc}", "general.exp_name"),
        ("general: {exp_name: .}", "general.exp_name"),
        ("general: {exp_name: a/b}", "general.exp_name"),
        ("general: {random_seed: 99999999999999999999}", "general.random_seed"),
        ("random_seed: 2026-13-45", "not valid YAML"),
        ("dataset: {{x}}", "not valid YAML"),
        ("? [a, b]\n: 1", "not valid YAML"),
        ("optimizer: {lr: " + "9" * 400 + "}", "optimizer.lr must be finite"),
        ("optimizer: {seed: 7}", "unknown key optimizer.seed"),
        ("random_seed: 1\ngeneral: {random_seed: 2}", "contradicts"),
        ("dataset: [1, 2]", "section dataset must be a mapping"),
        ("- 1", "expected sections"),
        ("dataset: {scale: 0.1, scale: 0.2}", "written twice"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_errors_name_file_and_key(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"my_run\.yaml: ") as error:
        load_config(write(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such config file"):
        load_config(tmp_path / "nowhere.yaml")


def test_overrides(tmp_path):
    overrides = ["trainer.max_epoch=3", "optimizer.lr=1e-4", "dataset.writelist=[Car, Cyclist]", "trainer.gpu_ids=1"]
    overrides.append("dataset.root_dir=elsewhere")
    config = load_config(write(tmp_path, OFFICIAL_MONODLE), overrides)
    assert config.general.dataroot == "elsewhere"
    assert config.trainer.max_epoch == 3
    assert config.optimizer.lr == 1e-4
    assert config.dataset.writelist == ("Car", "Cyclist")
    assert config.trainer.gpu_ids == (1,)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_epoch=3", "expected section.key=value"),
        ("trainer.gpu_ids=", "a value is missing"),
        ("trainer.max_epochs=3", "did you mean 'max_epoch'?"),
        ("trainr.max_epoch=3", "did you mean 'trainer'?"),
        ("trainer.max_epoch=soon", "trainer.max_epoch must be a whole number"),
    ],
)
def test_bad_overrides(tmp_path, override, message):
    with pytest.raises(ValueError, match="my_run") as error:
        load_config(write(tmp_path, OFFICIAL_MONODLE), [override])
    assert message in str(error.value)


def test_a_missing_dataroot_is_named():
    config = parse_config({"general": {"dataroot": "data/nowhere"}})
    with pytest.raises(FileNotFoundError, match=r"data/nowhere'.*ImageSets"):
        find_dataroot(config)


def test_errors_name_the_override_only_where_the_file_is_valid(tmp_path):
    path = write(tmp_path, "trainer: {max_epoch: 3}")
    overrides = ["general.exp_name=x", "trainer.max_epoch=abc"]
    with pytest.raises(ValueError, match=r"with --set trainer.max_epoch=abc: trainer.max_epoch must be"):
        load_config(path, overrides)
    path.write_text("trainer: {max_epoch: abc}")
    with pytest.raises(ValueError, match=r"yaml: trainer.max_epoch must be"):
        load_config(path, overrides)
    path.write_text("trainer:\n  max_epoch: [3\nmodel: {}\n")
    with pytest.raises(ValueError, match=r"not valid YAML in UTF-8: .*line 3, column") as caught:
        load_config(path)
    assert "unicode string" not in str(caught.value)


RETIRED = """
dataset: {use_dontcare: true}
model: {type: CenterNet3D, neck: DLAUp, num_class: 3}
tester: {type: kitti}
"""


def test_retired_keys_are_checked_and_dropped(tmp_path):
    config = load_config(write(tmp_path, RETIRED))
    assert config == load_config(write(tmp_path, ""))
    assert "num_class" not in dump_config(config)["model"]
    assert parse_config(yaml.safe_load(RETIRED), ["model.num_class=0", "model.neck=DLAUp"]) == Config()
    assert parse_config({"dataset": {"type": "mine"}, "tester": {"type": "mine"}}).dataset.type == "mine"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_class=2", "model.num_class must be 0 or 3 or left out, got 2"),
        ("model.type=retinanet", "model.type must be centernet3d or left out, got 'retinanet'"),
        ("tester.type=mine", "tester.type must be kitti or left out, got 'mine'"),
    ],
)
def test_other_values_of_retired_keys_are_refused(tmp_path, override, message):
    with pytest.raises(ValueError, match="with --set") as error:
        load_config(write(tmp_path, RETIRED), [override])
    assert message in str(error.value)


def test_tester_pictures_of_version_0_1_is_tester_images(tmp_path):
    assert load_config(write(tmp_path, "tester: {pictures: 7}")).tester.images == 7
    assert load_config(write(tmp_path, ""), ["tester.pictures=7"]).tester.images == 7


def test_differences_are_those_of_common_keys():
    old = {"dataset": {"batch_size": 8, "shuffle": True}, "general": {"random_seed": 444}, "version": 1}
    new = parse_config({"dataset": {"resolution": [640, 192]}})
    assert flatten(old) == {"dataset.batch_size": 8, "dataset.shuffle": True, "general.random_seed": 444}
    assert flatten(new)["dataset.resolution"] == [640, 192]
    assert differences(old, new) == {"dataset.batch_size": (8, 16)}
    assert differences(Config(), new) == {"dataset.resolution": ([1280, 384], [640, 192])}
    assert differences(old, new, keys=("general.random_seed",)) == differences(new, new) == {}


def test_derived_values():
    dataset = Dataset(writelist=("Pedestrian", "Car"))
    assert dataset.evaluated_classes == ["Car", "Pedestrian"]
    own = {"dataset": {"class_names": ["Car", "Van"]}, "tester": {"overlaps": {"Van": [0.5, 0.25]}}}
    assert parse_config(own).tester.own_overlaps == {"Van": (0.5, 0.25)}


def test_names_are_compared_without_regard_to_case():
    raw = {"class_names": ["forkLift", "pedestrian", "VAN"], "writelist": ["Forklift", "Pedestrian"]}
    raw["mean_sizes"] = {"FORKLIFT": [1, 2, 3]}
    config = parse_config({"dataset": raw, "tester": {"overlaps": {"forklift": [0.5, 0.25]}}})
    assert config.dataset.class_names == ("forkLift", "Pedestrian", "Van")
    assert config.dataset.writelist == ("forkLift", "Pedestrian")
    assert list(config.dataset.mean_sizes) == list(config.tester.overlaps) == ["forkLift"]
    merging = {"class_names": ["Car", "van"], "writelist": ["Car"], "class_merging": True}
    with pytest.raises(ValueError, match="class_merging must be false where class_names has Van"):
        parse_config({"dataset": merging})
