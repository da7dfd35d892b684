import math

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.conftest import TINY

from nec.encoders import Encoder

NAME = "vit_tiny_patch16_224"


def build(checkpoint="random", **arguments):
    arguments = {"in_chans": 3, "image_size": 16, "architecture": TINY} | arguments
    return Encoder(NAME, checkpoint=str(checkpoint), **arguments)


def vit(**arguments):
    torch.manual_seed(1)
    return timm.create_model(NAME, **({"num_classes": 0, "img_size": 16} | TINY | arguments))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
@pytest.mark.parametrize("block", [1, 3])
def test_tokens_are_timms_intermediate_features(tmp_path, name, block):
    arguments = {"embed_dim": 32, "depth": 3, "num_heads": 2}
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=0, img_size=112, **arguments).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    encoder = Encoder(
        name,
        checkpoint=str(tmp_path / "w.safetensors"),
        image_size=112,
        block=block,
        architecture=arguments,
    )
    image = torch.randn(2, 3, 112, 112)
    expected = model.forward_intermediates(image, indices=[block - 1], intermediates_only=True)[0]
    torch.testing.assert_close(encoder(image), expected)


def test_the_final_norm_is_applied_on_request(tmp_path):
    model = vit().eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    image = torch.randn(2, 3, 16, 16)
    y = build(tmp_path / "w.safetensors", normalized=True)(image)
    expected = model.forward_features(image)[:, 1:].transpose(1, 2).reshape(2, 32, 4, 4)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("opened", [0, 1, 3, 7])
def test_suffix_goes_on_where_prefix_stopped(encoder, opened):
    encoder.open(opened)
    image = torch.randn(2, 4, 16, 16)
    assert torch.equal(encoder.suffix(encoder.prefix(image)), encoder(image))


def test_all_patches_visible_in_order_is_the_whole_grid(encoder):
    image = torch.randn(2, 4, 16, 16)
    visible = torch.arange(16).expand(2, -1)
    assert torch.equal(encoder(image, visible), encoder(image))
    assert encoder(image, visible[:, :5]).shape == (2, 32, 5, 1)


def test_everything_is_frozen_and_stays_in_eval(encoder):
    encoder.train()
    assert not any(m.training for m in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize(
    ("dtype", "full"), [(torch.uint8, 255), (torch.uint16, 65535), (torch.float32, 1)]
)
def test_the_largest_value_of_a_type_is_one(dtype, full):
    encoder = build(mean=0.0, std=1.0)
    image = torch.full((3, 16, 16), full).to(dtype)
    assert torch.equal(encoder.preprocess(image), torch.ones(3, 16, 16))


def test_pixels_are_scaled_then_normalized_then_resized():
    encoder = build(mean=[0.1, 0.2, 0.3], std=0.5, full_scale=10000)
    image = torch.full((3, 31, 20), 5000, dtype=torch.uint16)
    pixels = encoder.preprocess(image)
    expected = torch.tensor([0.8, 0.6, 0.4])[:, None, None].expand(3, 16, 16)
    torch.testing.assert_close(pixels, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoint": "absent.safetensors"}, "absent.safetensors is not a file"),
        ({"block": 4}, "block is 4; vit_tiny_patch16_224 has 1 to 3"),
        ({"image_size": 18}, "multiple of the patch size 4"),
        ({"mean": [0.5]}, "one value for each of 3 bands"),
        ({"std": 0}, "each > 0"),
        ({"in_chans": 0}, "in_chans is 0; .* a band or more, set encoder.in_chans"),
        ({"architecture": {"depth": 0}}, "depth is 0; .* set encoder.architecture.depth=12"),
        *(({"full_scale": n}, f"full_scale is {n}; .*> 0") for n in (0, -1, math.nan, math.inf)),
    ],
)
def test_a_wrong_option_is_named(arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(**arguments)


def test_no_weights_are_never_random_ones():
    with pytest.raises(ValueError, match=r"encoder\.pretrained=true"):
        Encoder(NAME)


def test_weights_that_the_hub_does_not_give_name_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"cannot be loaded .*encoder\.checkpoint=FILE") as error:
        Encoder(NAME, pretrained=True)
    assert "\n" not in str(error.value)


def test_what_pools_tokens_is_no_part_of_an_encoder(tmp_path):
    name = "vit_base_patch16_siglip_224"
    arguments = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 4}
    model = timm.create_model(name, num_classes=0, img_size=16, **arguments).eval()
    assert model.attn_pool is not None
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    encoder = Encoder(
        name, checkpoint=str(tmp_path / "w.safetensors"), image_size=16, architecture=arguments
    )
    counted = {id(p) for stage in encoder.stage_parameters() for p in stage}
    assert counted == {id(p) for p in encoder.vit.parameters()}
    assert not any("attn_pool" in key for key in encoder.vit.state_dict())
    image = torch.randn(2, 3, 16, 16)
    expected = model.forward_intermediates(image, indices=[1], intermediates_only=True, norm=False)
    torch.testing.assert_close(encoder(image), expected[0])


@pytest.mark.parametrize("name", ["vit_enormous", "resnet18"])
def test_what_is_no_vit_of_timm_is_refused(name):
    with pytest.raises(ValueError, match=name):
        Encoder(name, checkpoint="random", image_size=32)


def test_other_bands_and_nan_in_an_image_are_refused():
    encoder = build()
    with pytest.raises(ValueError, match=r"has 4 bands, encoder .* takes 3"):
        encoder.preprocess(torch.zeros(4, 16, 16))
    image = torch.zeros(3, 16, 16)
    image[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 values that are NaN"):
        encoder.preprocess(image)


def test_the_identity_follows_weights_and_preprocessing(tmp_path):
    save_file(vit().state_dict(), tmp_path / "w.safetensors")
    one, same = (build(tmp_path / "w.safetensors") for _ in range(2))
    assert one.describe() == same.describe()
    assert build(tmp_path / "w.safetensors", mean=0.1).prefix_sha256() != one.prefix_sha256()
    assert same.prefix_sha256() == one.prefix_sha256()
    same.open(2)
    assert same.prefix_sha256() != one.prefix_sha256()  # a shorter prefix
    assert same.weights_sha256() == one.weights_sha256()
    with torch.no_grad():
        same.vit.cls_token.add_(1)
    assert same.weights_sha256() != one.weights_sha256()


def test_untrained_weights_are_the_same_every_time_and_draw_no_chance_of_others():
    torch.manual_seed(1)
    first = build().weights_sha256()
    drawn = torch.rand(1)
    torch.manual_seed(2)
    assert build().weights_sha256() == first
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)


def test_a_batch_is_embedded_from_its_images_or_from_the_tokens_of_its_prefix(encoder):
    encoder.open(3)
    image = torch.randn(5, 4, 16, 16)
    cached = {"tokens": encoder.prefix(image), "id": list("abcde")}
    assert torch.equal(encoder.embed({"image": image}), encoder(image))
    assert torch.equal(encoder.embed(cached), encoder(image))


def test_all_batches_are_embedded_in_their_order(encoder):
    images = torch.randn(5, 4, 16, 16).split(2)
    batches = [{"image": image, "id": ["name"] * len(image)} for image in images]
    y = encoder.embed_all(batches, torch.device("cpu"))
    assert y.dtype == torch.float32
    assert torch.equal(y, torch.cat([encoder(batch["image"]) for batch in batches]))


@pytest.mark.parametrize("before", [True, False])
def test_patches_are_embedded_in_float32_and_not_in_tf32(encoder, monkeypatch, before):
    cudnn, found = torch.backends.cudnn, []
    monkeypatch.setattr(cudnn, "allow_tf32", before)
    projection = encoder.vit.patch_embed.proj
    projection.register_forward_hook(lambda *_: found.append(cudnn.allow_tf32))
    encoder(torch.zeros(1, 4, 16, 16))
    assert found == [False]
    assert cudnn.allow_tf32 is before
