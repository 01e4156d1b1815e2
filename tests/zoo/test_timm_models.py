"""Any timm network as a backbone: weights from a file or the cache, the graph without torch, licences."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from keepsight.data import vectors
from keepsight.errors import BadInputError, NotFoundError, WeightsError
from keepsight.runtime.session import open_session, run
from keepsight.zoo import licences, timm_models, torch_networks
from keepsight.zoo.backbone import load_backbone
from tests import tiny

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("torch_installed")]

# timm has tiny networks of its large families for tests like these.
RESNET = "timm/test_resnet.r160_in1k"
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Writes random weights of a timm network into a file; the weights are the same for each name."""
    folder = tmp_path_factory.mktemp("weights")

    def write(name: str = RESNET, *, kind: str = "pth", change: Callable[[dict[str, Any]], Any] = dict) -> Path:
        import timm
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        state = change(timm.create_model(name.removeprefix("timm/"), pretrained=False).state_dict())
        path = folder / f"{name.removeprefix('timm/')}-{len(list(folder.iterdir()))}.{kind}"
        if kind == "safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        return path

    return write


def features_of(name: str, weights: Path) -> tuple[Any, Any]:
    """What timm itself gives for two pictures of noise, and these pictures."""
    import timm
    import torch

    model = timm.create_model(name.removeprefix("timm/"), pretrained=False)
    state = torch.load(weights, weights_only=True)
    model.load_state_dict(state)
    model.reset_classifier(0)
    size = model.pretrained_cfg["input_size"][1]
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model.eval()(image).numpy(), image.numpy()


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        (RESNET, ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("timm/test_efficientnet.r160_in1k", ["stem", *[f"block{index}" for index in range(5)], "head"]),
        ("timm/mobilenetv3_small_050.lamb_in1k", ["stem", *[f"block{index}" for index in range(12)]]),
        ("timm/test_convnext.r160_in1k", ["stem", "stage0", "stage1", "stage2", "stage3"]),
        ("timm/test_byobnet.r160_in1k", ["stem", "stage0", "stage1", "stage2", "stage3"]),
        ("timm/regnety_002.pycls_in1k", ["stem", "s1", "s2", "s3", "s4"]),
        ("timm/test_vit.r160_in1k", ["stem", *[f"block{index}" for index in range(6)], "head"]),
        ("timm/levit_128s.fb_dist_in1k", ["all"]),
    ],
)
def test_graph_and_stages_give_what_timm_gives(name: str, stages: list[str] | None, made: Made, tmp_path: Path) -> None:
    import torch

    weights = made(name)
    expected, image = features_of(name, weights)
    backbone = load_backbone(name, cache=tmp_path, weights=weights)
    close = 1e-4 * max(1.0, float(np.abs(expected).max()))
    found = run(open_session(backbone.onnx, threads=1), image, outputs=["features"])["features"]
    np.testing.assert_allclose(found, expected, atol=close, rtol=0)
    assert backbone.features_dim == expected.shape[1]
    network = torch_networks.load(name, cache=tmp_path, weights=backbone.weights)
    assert [stage for stage, _ in network.stages] == stages
    x = torch.from_numpy(image)
    with torch.no_grad():
        for _, stage in network.stages:
            x = stage(x)
        np.testing.assert_allclose(network.pool(x).numpy(), expected, atol=close, rtol=0)
    # Every weight can be trained, and stands in one stage only.
    own = [id(item) for module in [*dict(network.stages).values(), network.pool] for item in module.parameters()]
    assert len(own) == len(set(own)) > 10


def test_the_graph_is_the_network_as_it_is_used(made: Made, tmp_path: Path) -> None:
    """Folded like the catalogue's own graph: no batch normalisation, no paddings, no sums about shapes."""
    name = "timm/tf_efficientnet_lite0.in1k"
    model = onnx.load_model_from_string(load_backbone(name, cache=tmp_path, weights=made(name)).onnx)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds == {"Conv", "Clip", "Add", "GlobalAveragePool", "Flatten"}


def test_preprocessing_and_licence_are_those_of_the_weights(made: Made, tmp_path: Path) -> None:
    backbone = load_backbone(RESNET, cache=tmp_path, weights=made())
    assert backbone.preprocessing.as_dict() == {
        "size": 160,
        "mean": [127.5] * 3,
        "std": [127.5] * 3,
        "crop": 0.95,
        "interpolation": "bilinear",
    }
    assert backbone.licences == ("Apache-2.0",)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped", "without classifier"])
def test_files_of_every_usual_form_are_read(kind: str, made: Made, tmp_path: Path) -> None:
    plain = load_backbone(RESNET, cache=tmp_path / "plain", weights=made())
    if kind == "wrapped":
        path = made(change=lambda state: {"epoch": 3, "state_dict": {f"module.{key}": v for key, v in state.items()}})
    elif kind == "without classifier":
        path = made(change=lambda state: {key: value for key, value in state.items() if not key.startswith("fc.")})
    else:
        path = made(kind=kind)
    found = load_backbone(RESNET, cache=tmp_path / "other", weights=path)
    assert found.digest == plain.digest
    assert found.weights == path


def test_what_is_cached_needs_no_torch(made: Made, tmp_path: Path) -> None:
    weights = made()
    first = load_backbone(RESNET, cache=tmp_path, weights=weights)
    timm_models.fetch_weights(RESNET, cache=tmp_path, source=weights)
    program = (
        "import sys; from pathlib import Path; from keepsight.zoo.backbone import load_backbone;"
        "sys.modules.update(torch=None, timm=None, torchvision=None);"
        f"given = load_backbone({RESNET!r}, cache=Path({str(tmp_path)!r}), weights=Path({str(weights)!r}));"
        f"fetched = load_backbone({RESNET!r}, cache=Path({str(tmp_path)!r}));"
        "print(given.digest, fetched.digest)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [first.digest, first.digest]


def test_other_weights_in_the_same_file_give_another_network(made: Made, tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(made().read_bytes())
    first = load_backbone(RESNET, cache=tmp_path, weights=weights)
    weights.write_bytes(made(change=lambda state: {key: value * 1 + 0 for key, value in state.items()}).read_bytes())
    assert load_backbone(RESNET, cache=tmp_path, weights=weights).digest == first.digest
    changed = made(change=lambda state: {**state, "layer1.0.conv1.weight": state["layer1.0.conv1.weight"] * 2})
    weights.write_bytes(changed.read_bytes())
    assert load_backbone(RESNET, cache=tmp_path, weights=weights).digest != first.digest


def test_a_damaged_cache_is_made_again_and_never_used(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetched = timm_models.fetch_weights(RESNET, cache=tmp_path, source=made())
    first = load_backbone(RESNET, cache=tmp_path)
    (graph,) = tmp_path.glob("timm/*.onnx")
    graph.write_bytes(graph.read_bytes()[:-1] + b"\xff")
    with caplog.at_level(logging.WARNING):
        assert load_backbone(RESNET, cache=tmp_path) == first
    assert "damaged" in caplog.text
    graph.unlink()
    fetched.path.write_bytes(fetched.path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(WeightsError, match="not what was fetched"):
        load_backbone(RESNET, cache=tmp_path)
    with pytest.raises(WeightsError, match="not what was fetched"):
        torch_networks.load(RESNET, cache=tmp_path)


def test_weights_that_do_not_fit_are_refused_and_random_ones_never_stand_in(made: Made, tmp_path: Path) -> None:
    lacking = made(change=lambda state: {key: value for key, value in state.items() if not key.startswith("layer3")})
    with pytest.raises(WeightsError, match="layer3"):
        load_backbone(RESNET, cache=tmp_path, weights=lacking)
    with pytest.raises(WeightsError, match="not those of timm/test_convnext"):
        timm_models.fetch_weights("timm/test_convnext.r160_in1k", cache=tmp_path, source=made())
    assert timm_models.here(cache=tmp_path) == []
    with pytest.raises(WeightsError, match="cannot be read"):
        load_backbone(RESNET, cache=tmp_path, weights=tmp_path / "nowhere.pth")


def test_a_file_that_would_execute_something_is_refused(tmp_path: Path) -> None:
    import torch

    class Harmful:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "executed"),))

    torch.save({"conv1.weight": Harmful()}, tmp_path / "harmful.pth")
    (tmp_path / "text.safetensors").write_text("no tensors at all")
    (tmp_path / "text.pth").write_text("no tensors at all")
    for name in ("harmful.pth", "text.safetensors", "text.pth"):
        with pytest.raises(WeightsError, match="not a file of weights"):
            load_backbone(RESNET, cache=tmp_path, weights=tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_without_the_hub_the_way_out_is_told(tmp_path: Path) -> None:
    """In a process of its own: the hub's client reads where the hub is once."""
    program = (
        "from pathlib import Path; from keepsight.errors import WeightsError;"
        "from keepsight.zoo.backbone import load_backbone\n"
        f"try: load_backbone({RESNET!r}, cache=Path({str(tmp_path)!r}))\n"
        "except WeightsError as error: print(error)"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert "not on this machine" in done.stdout
    assert f"keepsight zoo fetch {RESNET} --weights FILE" in done.stdout


def test_unknown_names_and_foreign_preprocessings_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="resnet18"):
        load_backbone("timm/resnet18x", cache=tmp_path)
    with pytest.raises(NotFoundError, match="a1_in1k"):
        load_backbone("timm/resnet18.a9_in1k", cache=tmp_path)
    for name in ("timm/../../etc/passwd", "timm/", "timm/hf-hub:somebody/model"):
        with pytest.raises(BadInputError, match="not the name of a timm network"):
            load_backbone(name, cache=tmp_path)
    with pytest.raises(BadInputError, match="preprocessing"):
        load_backbone(RESNET, cache=tmp_path, weights=made(), preprocessing=tiny.backbone().preprocessing)


def test_a_restricted_licence_must_be_allowed_by_name(made: Made, tmp_path: Path) -> None:
    name = "timm/convnextv2_atto.fcmae_ft_in1k"
    weights = made(name)
    with pytest.raises(WeightsError, match="CC-BY-NC-4"):
        load_backbone(name, cache=tmp_path, weights=weights)
    with pytest.raises(WeightsError, match="CC-BY-NC-4"):
        timm_models.fetch_weights(name, cache=tmp_path, source=weights)
    assert not list(tmp_path.glob("timm/*"))
    allowed = load_backbone(name, cache=tmp_path, weights=weights, allowed_licences=["cc-by-nc-4.0"])
    assert allowed.licences == ("CC-BY-NC-4.0",)
    # What one project allowed is not open to another one through the cache.
    with pytest.raises(WeightsError, match="CC-BY-NC-4"):
        load_backbone(name, cache=tmp_path, weights=weights)


@pytest.mark.parametrize(
    ("stated", "identifier", "refused"),
    [
        ("apache-2.0", "Apache-2.0", False),
        ("mit", "MIT", False),
        ("cc-by-4.0", "CC-BY-4.0", False),
        ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0", True),
        ("agpl-3.0", "AGPL-3.0", True),
        ("fair-noncommercial-research-license", "LicenseRef-fair-noncommercial-research-license", True),
        ("dinov3-license", "LicenseRef-dinov3-license", False),
        (None, "LicenseRef-unknown", False),
    ],
)
def test_licences_have_spdx_names(stated: str | None, identifier: str, refused: bool) -> None:
    assert licences.spdx(stated) == identifier
    assert licences.restricted(identifier) == refused


def test_a_project_names_network_file_and_licences(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPSIGHT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "resnet.pth").write_bytes(made().read_bytes())
    with tiny.workspace_with(root, f"train.backbone: {RESNET}, train.weights: resnet.pth") as ws:
        backbone = vectors.backbone_of(ws, ws.settings("shop"))
        assert (backbone.name, backbone.features_dim) == (RESNET, 96)
        assert backbone.weights == root / "resnet.pth"
    with tiny.workspace_with(root, "train.weights: resnet.pth") as ws, pytest.raises(BadInputError, match="its own"):
        vectors.backbone_of(ws, ws.settings("shop"))


def test_the_command_line_fetches_and_lists_them(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keepsight.cli.zoo import app

    monkeypatch.setenv("KEEPSIGHT_CACHE", str(tmp_path))

    def keepsight(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False)

    assert "timm/NAME" in keepsight("list").output
    done = json.loads(keepsight("fetch", RESNET, "--weights", made(), "--json").output)
    assert done["licence"] == "Apache-2.0"
    assert Path(done["path"]).is_file()
    (row,) = [row for row in json.loads(keepsight("list", "--json").output) if row["name"] == RESNET]
    assert row["available"] is True
    assert row["size_bytes"] == Path(done["path"]).stat().st_size
    assert RESNET in keepsight("list").output
    assert load_backbone(RESNET).digest == load_backbone(RESNET, weights=Path(done["path"])).digest
