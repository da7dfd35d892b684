import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.conftest import TINY

from nec.checkpoints import load

NAME = "vit_tiny_patch16_224"


def vit(seed=1, **arguments):
    torch.manual_seed(seed)
    return timm.create_model(NAME, **({"num_classes": 0, "img_size": 16} | TINY | arguments))


def saved(folder, **arguments):
    save_file(vit(**arguments).state_dict(), folder / "w.safetensors")
    return str(folder / "w.safetensors")


def test_weights_are_loaded_as_they_are_and_in_silence(tmp_path, caplog):
    model = vit(seed=2)
    load(model, NAME, saved(tmp_path))
    for key, value in vit().state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    assert not caplog.records


def test_positions_of_another_grid_are_resampled_with_a_warning(tmp_path, caplog):
    load(vit(), NAME, saved(tmp_path, img_size=32))
    assert "pos_embed (1, 65, 32) -> (1, 17, 32)" in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_pt_file_and_other_bands_load_with_a_warning(tmp_path, caplog):
    torch.save({"model": vit().state_dict()}, tmp_path / "w.pt")
    model = vit(in_chans=5)
    load(model, NAME, str(tmp_path / "w.pt"))
    assert model(torch.randn(1, 5, 16, 16)).shape == (1, 32)
    assert "patch_embed.proj.weight (32, 3, 4, 4) -> (32, 5, 4, 4)" in caplog.text


def test_a_classifier_is_dropped_and_anything_else_that_is_foreign_refused(tmp_path):
    state = vit(num_classes=5).state_dict() | {"attn_pool.latent": torch.zeros(1, 1, 32)}
    save_file(state, tmp_path / "w.safetensors")
    load(vit(), NAME, str(tmp_path / "w.safetensors"))
    save_file(state | {"extra": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"1 foreign \(extra\)"):
        load(vit(), NAME, str(tmp_path / "x.safetensors"))


def test_a_checkpoint_of_another_architecture_is_refused_with_what_differs(tmp_path):
    path = saved(tmp_path, depth=2, embed_dim=48)
    with pytest.raises(ValueError, match=r"not of vit_tiny.* 12 missing .* misshapen"):
        load(vit(), NAME, path)


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], {"model": torch.zeros(3)}])
def test_a_pt_file_without_tensors_by_name_is_refused_with_what_it_holds(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt holds a (Tensor|list) where tensors by name are"):
        load(vit(), NAME, str(tmp_path / "w.pt"))


def test_tensors_by_number_are_not_those_of_a_vit(tmp_path):
    torch.save({0: torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="is not of vit_tiny"):
        load(vit(), NAME, str(tmp_path / "w.pt"))


def test_a_checkpoint_that_would_run_code_is_not_unpickled(tmp_path):
    torch.save({"model": print}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load(vit(), NAME, str(tmp_path / "w.pt"))
