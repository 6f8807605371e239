"""The three hierarchical losses against closed-form values, in both readings of each."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import arrays, published_settings, scalars
from torch import Tensor

from hdam.models.attention import AnchorAttention, features_at, scaled_attention
from hdam.models.geometry import expected_position, motion_affine
from hdam.models.losses import attended_structure, completeness, orthogonal, structure, structure_distance
from hdam.models.structures import Anchors, AnchorTree

EXACT = 1e-11
IGNORED = {"hdam": (1, 4), "hdam_mgif": ()}


def assert_close(ours: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() < tolerance


@pytest.fixture(scope="module")
def constraint(golden: Path) -> dict[str, Tensor]:
    return arrays(golden / "constraint.npz")


@pytest.fixture(scope="module")
def forms(golden: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return arrays(golden / "attention_forms.npz"), json.loads((golden / "attention_forms.json").read_text())


@pytest.fixture(scope="module")
def supplementary(golden: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return arrays(golden / "hdam_supplementary.npz"), json.loads((golden / "hdam_supplementary.json").read_text())


def parents(constraint: dict[str, Tensor], level: str) -> tuple[Anchors, Anchors]:
    """Source and driving anchors of the root `r` or the intermediate level `i`."""
    source = Anchors(constraint[f"zs_{level}"], constraint[f"Js_{level}"])
    return source, Anchors(constraint[f"zd_{level}"], constraint[f"Jd_{level}"])


def test_expected_positions_and_distances(constraint):
    for parent, child in (("i", "k"), ("r", "k"), ("r", "i")):
        source, driving = parents(constraint, parent)
        assert_close(motion_affine(source, driving), constraint[f"theta_{parent}"])
        moved = expected_position(source, driving, constraint[f"zd_{child}"])
        assert_close(moved, constraint[f"T_{parent}_of_{child}"])
        distance = structure_distance(source, driving, constraint[f"zs_{child}"], constraint[f"zd_{child}"])
        stored = constraint[f"dist_{parent}{child}"]
        assert_close(distance.view_as(stored), stored)


def test_reductions(constraint):
    by_root = structure_distance(*parents(constraint, "r"), constraint["zs_k"], constraint["zd_k"])
    assert_close(structure(by_root), constraint["dam_root_to_motion_mean"])
    assert_close(by_root.sum((1, 2)), constraint["dam_root_to_motion_sum_k"])
    to_intermediate = structure_distance(*parents(constraint, "r"), constraint["zs_i"], constraint["zd_i"])
    assert_close(structure(to_intermediate), constraint["root_to_inter_mean"])
    assert_close(to_intermediate.sum((1, 2)), constraint["root_to_inter_sum_i"])
    distance, attention = constraint["dist_ik"], constraint["attention"]
    for sample, expected in enumerate(constraint["hdam_weighted_sum"]):
        only = slice(sample, sample + 1)
        assert_close(attended_structure(distance[only], attention[only]), expected)
    assert_close(attended_structure(distance, attention), constraint["hdam_code_mean_over_batch"])
    assert_close(attended_structure(distance, constraint["attention_ignore14"]), constraint["hdam_ignore14_code"])


def test_gradient_of_the_attended_structure(constraint):
    moving = constraint["zs_k"].clone().requires_grad_()
    distance = structure_distance(*parents(constraint, "i"), moving, constraint["zd_k"])
    (attended_structure(distance, constraint["attention"]) * len(moving)).backward()
    assert_close(moving.grad, constraint["grad_hdam_weighted_sum_wrt_zs_k"])


def test_pair_losses_of_eq_4(constraint):
    distance = structure_distance(*parents(constraint, "i"), constraint["zs_k"], constraint["zd_k"])
    parent, first, second = constraint["pair_index_i_k1_k2"].T
    assert_close(distance[:, parent, first] + distance[:, parent, second], constraint["pair_loss_eq4"])


def test_an_intermediate_anchor_that_overlaps_a_motion_anchor(constraint):
    """Eqs. 6 to 8: the one is moved with the other, and the distance to a second motion anchor may vanish."""
    unit = torch.eye(2, dtype=torch.float64).expand(32, 1, 2, 2)
    source = Anchors(constraint["ov_z1s"][:, None], constraint["ov_theta"][:, None])
    driving = Anchors(constraint["ov_z1d"][:, None], unit)
    second = constraint["ov_z2d"][:, None]
    at_first = expected_position(source, driving, driving.position)[:, 0, 0]
    assert_close(at_first, constraint["ov_T_of_k1"])
    assert_close(at_first, constraint["ov_z1s"])
    at_second = expected_position(source, driving, second)[:, 0, 0]
    assert_close(at_second, constraint["ov_T_of_k2_eq7"])
    distance = structure_distance(source, driving, constraint["ov_z2s"][:, None], second)[:, 0, 0]
    assert_close(distance, constraint["ov_loss_eq4"])
    fitting = constraint["ov_z2s_zero_loss"]
    assert structure_distance(source, driving, fitting[:, None], second).max() < EXACT
    assert_close(fitting - constraint["ov_z1s"], constraint["ov_delta_eq8"])
    assert_close(at_second - constraint["ov_z1s"], constraint["ov_theta_times_delta_eq8"])


def per_sample(loss: Any, attention: Tensor, **settings: Any) -> list[float]:
    """The supplementary's reading of a loss for each sample alone."""
    return [loss(one[None], reading="paper", **settings).item() for one in attention]


def assert_readings(attention: Tensor, ignored: tuple[int, ...], stored: dict[str, Any]) -> int:
    """Every value of L_ortho and L_compl that `stored` holds; returns how many were compared."""
    compared = 0
    for key, value in stored.items():
        found = re.match(r"(ortho|compl)_(supp|code)(?:_d([\d.]+))?(_all|_active)?", key)
        if found is None:
            continue
        name, form, delta, columns = found.groups()
        if name == "ortho":
            ours = per_sample(orthogonal, attention, ignored=ignored)
            released = orthogonal(attention, reading="released", ignored=ignored).item()
        else:
            settings = {"delta": float(delta), "ignored": () if columns == "_all" else ignored}
            ours = per_sample(completeness, attention, **settings)
            released = completeness(attention, reading="released", **settings).item()
        if form == "code":
            # The published code gives NaN where all rows are equal; the formula gives 0.
            ours, value = [released], [0.0 if math.isnan(value) else value]
        elif key.endswith("batch_mean"):
            ours, value = [orthogonal(attention, reading="paper", ignored=ignored).item()], [value]
        assert ours == pytest.approx(value, rel=1e-9, abs=1e-12), key
        compared += 1
    return compared


@pytest.mark.parametrize("case", ["soft3", "sharp3", "ign3", "four", "two", "equal_rows"])
def test_attention_and_its_losses_from_logits(forms, case: str):
    tensors, values = forms
    assert case in values
    ignored = tuple(values[case]["ignore"])
    logits = tensors[f"{case}.logits"]
    unit = torch.eye(logits.shape[-1], dtype=torch.float64).expand(len(logits), -1, -1)
    attention = scaled_attention(logits, unit, divisor=1, ignored=ignored)
    assert_close(attention, tensors[f"{case}.attention"])
    assert assert_readings(attention, ignored, values[case]) == 12


def detected(golden: Path, name: str) -> tuple[AnchorTree, AnchorTree]:
    """Anchors of source and driving image as the published code detected them."""
    stored = arrays(golden / f"{name}_eval.npz")
    return tuple(
        AnchorTree.split(
            Anchors(stored[f"kp_{which}.value"], stored[f"kp_{which}.jacobian"]),
            num_motion=10,
            has_root=True,
            features=stored[f"kp_{which}.feature_map"],
        )
        for which in ("source", "driving")
    )


def distances(golden: Path, name: str) -> tuple[Tensor, Tensor]:
    """Root to intermediate, and intermediate to motion."""
    source, driving = detected(golden, name)
    by_root = structure_distance(source.root, driving.root, source.intermediate.position, driving.intermediate.position)
    inner = structure_distance(
        source.intermediate, driving.intermediate, source.motion.position, driving.motion.position
    )
    return by_root, inner


@pytest.mark.parametrize("name", ["hdam", "hdam_mgif"])
def test_attention_of_the_supplementary(golden: Path, supplementary, name: str):
    tensors, _ = supplementary
    _, driving = detected(golden, name)
    key, query = tensors[f"{name}.W_Key"], tensors[f"{name}.W_Que"]
    for sampling, reading in (("ac0", "released"), ("ac1", "paper")):
        levels = [features_at(driving.features, level.position, reading=reading) for level in driving[1::-1]]
        for level, symbol in zip(levels, "IK", strict=True):
            assert_close(level, tensors[f"{name}.F_{symbol}_{sampling}"])
        for ignored, mask in (((), ""), (IGNORED[name], "_masked")):
            attention = scaled_attention(levels[0] @ key, levels[1] @ query, divisor=8, ignored=ignored)
            assert_close(attention, tensors[f"{name}.attention_supp{mask}_{sampling}"])
    network = AnchorAttention(7, 64).double()
    network.load_state_dict({"key.weight": key.T, "query.weight": query.T})
    with torch.no_grad():
        assert_close(network(driving), tensors[f"{name}.attention_supp_ac1"])
        masked = network(driving, ignored=IGNORED[name])
    assert_close(masked, tensors[f"{name}.attention_supp_masked_ac1"])


@pytest.mark.parametrize("name", ["hdam", "hdam_mgif"])
@pytest.mark.parametrize("which", ["code", "supp_ac0", "supp_masked_ac0"])
def test_losses_of_detected_anchors(golden: Path, supplementary, name: str, which: str):
    tensors, values = supplementary
    by_root, inner = distances(golden, name)
    assert_close(by_root[:, 0], tensors[f"{name}.dist_ri"])
    assert_close(inner, tensors[f"{name}.dist_ik"])
    if which == "code":
        attention, stored = arrays(golden / f"{name}_eval.npz")["attention"], values[name]["code_attention"]
    else:
        form, _, sampling = which.rpartition("_")
        attention = tensors[f"{name}.attention_{which}"]
        stored = values[name][f"{form.replace('supp', 'supp_attention')}_{sampling}"]
    ignored = () if which == "supp_ac0" else IGNORED[name]
    assert assert_readings(attention, ignored, stored) == 11
    each = [attended_structure(inner[b : b + 1], attention[b : b + 1]).item() for b in range(len(inner))]
    assert each == pytest.approx(stored["hdam_weighted_sum_per_sample"], rel=1e-9)
    assert by_root.sum((1, 2)).tolist() == pytest.approx(stored["root_to_inter_sum_per_sample"], rel=1e-9)


@pytest.mark.parametrize("name", ["hdam", "hdam_mgif"])
def test_losses_against_the_official_totals(golden: Path, supplementary, name: str):
    """The published combined structure term is ours of both levels; its parts carry the weights 1 and 10."""
    values, losses = supplementary[1][name], scalars(golden, name)["eval_losses"]
    weights = published_settings(golden, name)["train_params"]["loss_weights"]
    by_root, inner = distances(golden, name)
    attention = arrays(golden / f"{name}_eval.npz")["attention"]
    split = values["eval_split_of_root_motion_kp_distance"]
    parts = structure(by_root).item(), attended_structure(inner, attention).item()
    assert parts[0] == pytest.approx(split["root_to_intermediate_unweighted_mean"], rel=1e-9)
    assert parts[1] == pytest.approx(split["intermediate_to_motion_weighted_sum_batch_mean"], rel=1e-9)
    settings = {"reading": "released", "ignored": IGNORED[name]}
    delta = weights["sub_leaf_attention_value"]
    ours = {
        "root_motion_kp_distance": parts[0] + 10 * parts[1],
        "sub_attetion_distance": 10 * orthogonal(attention, **settings).item(),
        "complete_sub_leaf_attention": weights["complete_sub_leaf_attention"]
        * completeness(attention, delta=delta, **settings).item(),
    }
    for key, (recomputed, official, _) in values["eval_check_numpy_vs_official"].items():
        assert ours[key] == pytest.approx(recomputed, rel=1e-9)
        assert official == losses[key]
        assert ours[key] == pytest.approx(official, abs=5e-7), "anchors were stored in float32"


@pytest.mark.parametrize("name", ["hdam", "hdam_mgif"])
def test_losses_of_the_attention_in_training(golden: Path, supplementary, name: str):
    attention = arrays(golden / f"{name}_train.npz")["attention"]
    stored = supplementary[1][name]["train_mode_code_attention"]
    assert assert_readings(attention, IGNORED[name], stored) == 4
