"""Owns the law of 8-bit state of earlier versions: it is converted, with the numbers that it had for the version that
wrote it, or it is refused. Its codes are never read as those of today.
"""

import copy
from pathlib import Path

import pytest
import torch
from harness import Late, bits, clones, decoded, give_gradients, parameters, train
from reference import blocks, codes_away, dynamic_map

import pyadamw
from pyadamw._state import dynamic_maps
from pyadamw._state.export import converted

dcp, planner, state_dict = map(
    Late,
    (
        "torch.distributed.checkpoint",
        "torch.distributed.checkpoint.default_planner",
        "torch.distributed.checkpoint.state_dict",
    ),
)
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SHAPES = {1: ((40, 100), (5000,), (7,)), 2: ((20, 100), (700,), (7,))}
SMALLEST = {1: 4096, 2: 500}  # elements with 8-bit state
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def saved_as(number, kind="block-wise"):
    """(state dict, {parameter: {moment: its numbers}}). Format 1 had codes under torch's keys. The file of format 2
    also has the numbers that the version that wrote it made of it for torch.
    """
    found = torch.load(GOLDEN / f"state_format_{number}.pt", weights_only=True)
    if number == 2:
        return found[kind]["state_dict"], found[kind]["numbers"]
    return found, {key: {m: numbers_of(entry, m) for m in MOMENTS} for key, entry in found["state"].items()}


def numbers_of(entry, moment):
    """What codes of format 1 stand for, by the definition: those of second moments are of their square roots."""
    codes = entry[moment]
    if codes.dtype != torch.uint8:
        return codes
    values = dynamic_map(signed=moment == "exp_avg")[codes.int()].reshape(-1)
    values = values * entry[f"{moment}_absmax"].reshape(-1)[blocks(codes.shape)]
    return (values if moment == "exp_avg" else values.square()).float().view(codes.shape)


def optimizer_of(number, cls=pyadamw.AdamW8bit, **options):
    params = parameters(SHAPES[number])
    return params, cls(
        params, **{"amsgrad": True, "percentile_clipping": 50, "min_8bit_size": SMALLEST[number], **options}
    )


def assert_numbers(params, optimizer, expected):
    """32-bit state has them, to the 4 float32 units of the values of a map, twice in a square; 8-bit state is at most
    half a code away.
    """
    for key, numbers in expected.items():
        state = optimizer.state[params[key]]
        for moment, values in numbers.items():
            if moment in state:
                assert ((state[moment] - values).abs() <= 10 * 1.2e-7 * values.abs()).all()
            else:
                assert codes_away(state, moment, values).max() <= 0.5 + 2**-12
                assert f"{moment}_floor" in state or moment == "exp_avg"


@pytest.mark.parametrize("cls", [pyadamw.AdamW8bit, pyadamw.AdamW32bit, pyadamw.PagedAdamW8bit])
@pytest.mark.parametrize("number", [1, 2])
def test_files_of_earlier_formats_load(number, cls, recwarn):
    """The files in tests/golden are as those versions wrote them, and stay. They load without a word, and go on."""
    saved, numbers = saved_as(number)
    paged = {"page_manager": pyadamw.PageManager("host", min_numel=0)} if "Paged" in cls.__name__ else {}
    params, optimizer = optimizer_of(number, cls, **paged)
    before = copy.deepcopy(saved)
    optimizer.load_state_dict(saved)
    assert_numbers(params, optimizer, numbers)
    for key, entry in before["state"].items():
        assert optimizer.state[params[key]]["step"] == entry["step"]
        assert bits(optimizer.state[params[key]]["gnorm_history"]) == bits(entry["gnorm_history"])
        assert all(bits(saved["state"][key][name]) == bits(v) for name, v in entry.items() if torch.is_tensor(v))
    give_gradients(params, 9)
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in params)
    assert not recwarn.list


@pytest.mark.parametrize("block_wise", [True, False])
def test_one_scale_a_tensor(block_wise):
    """State of block_wise=False, too, into blocks or one scale."""
    saved, numbers = saved_as(2, "one scale")
    params = parameters([(20, 100)])
    optimizer = pyadamw.AdamW8bit(params, block_wise=block_wise, min_8bit_size=500)
    optimizer.load_state_dict(saved)
    assert optimizer.state[params[0]]["exp_avg_sq_floor"].shape == ((20, 1) if block_wise else (1,))
    assert_numbers(params, optimizer, numbers)


@pytest.mark.parametrize("number", [1, 2])
def test_conversion_of_state_dicts(number):
    """`python -m pyadamw convert`: to torch it has the numbers, to this version the codes that loading makes."""
    saved, numbers = saved_as(number)
    params, optimizer = optimizer_of(number)
    optimizer.load_state_dict(converted(saved, "torch"))
    assert_numbers(params, optimizer, numbers)
    optimizer.load_state_dict(saved)
    made = converted(saved, "pyadamw")
    assert [group["pyadamw_format"] for group in made["param_groups"]] == [3]
    for key, entry in made["state"].items():
        state = optimizer.state[params[key]]
        assert {name: bits(value) for name, value in entry.items()} == {name: bits(v) for name, v in state.items()}
    without_amsgrad = copy.deepcopy(saved)
    for entry in without_amsgrad["state"].values():
        for name in [name for name in entry if name.startswith("max_")]:
            del entry[name]
    written = converted(without_amsgrad, "bitsandbytes")
    params, optimizer = optimizer_of(number, pyadamw.AdamW32bit, amsgrad=False)
    optimizer.load_state_dict(written)
    for key, values in numbers.items():
        state = optimizer.state[params[key]]
        for moment in ("exp_avg", "exp_avg_sq"):
            assert (state[moment] - values[moment]).abs().max() <= 0.9 / 64 * values[moment].abs().max()


def test_dynamic_maps_are_those_of_the_paper():
    """Their values are those of the formula, increasing, to a float32 rounding; encoding takes the nearest."""
    for signed in (True, False):
        found = dynamic_maps.dynamic_map(signed)
        assert found.dtype == torch.float32 and (found.diff() > 0).all()
        assert ((found - dynamic_map(signed)).abs() <= 1.2e-7 * dynamic_map(signed).abs()).all()
        assert found[127 if signed else 0] == 0 and found[255] == 1
        values = torch.randn(1000) * torch.exp(2 * torch.randn(1000))
        values = values if signed else values.abs()
        codes, scales = dynamic_maps.encoded(values, signed)
        back = dynamic_maps.decoded(codes, scales, found, dynamic_maps.BLOCK)
        scaled = (values / scales.repeat_interleave(256)[:1000]).double()
        best = (scaled[:, None] - found.double()).abs().amin(1)
        assert ((scaled - back / scales.repeat_interleave(256)[:1000]).abs() <= best + 1e-6).all()
        for empty in (torch.zeros(0, 5), torch.zeros(3, 100)):
            codes, scales = dynamic_maps.encoded(empty, signed)
            assert torch.equal(dynamic_maps.decoded(codes, scales, found, dynamic_maps.BLOCK), empty)


# ---- where the number of the format is lost, or floors are left over -------------------------------------------------


def test_marks_say_it_too():
    """Without the groups' number, the marks beside the codes of format 2 say what they are."""
    saved, numbers = saved_as(2)
    for group in saved["param_groups"]:
        del group["pyadamw_format"]
    params, optimizer = optimizer_of(2)
    optimizer.load_state_dict(saved)
    assert_numbers(params, optimizer, numbers)


def test_codes_without_floors_and_number_are_refused():
    """With neither number nor marks nobody knows what the codes are."""
    saved, _ = saved_as(2)
    for group in saved["param_groups"]:
        del group["pyadamw_format"]
    for moment in MOMENTS:
        for entry in saved["state"].values():
            if isinstance(entry.get(moment), int):
                del entry[moment]
    params, optimizer = optimizer_of(2)
    with pytest.raises(ValueError, match=r"parameter 0 of group 0.* but no exp_avg_sq_floor: .*earlier version"):
        optimizer.load_state_dict(saved)
    assert not optimizer.state
    train(optimizer, params, 1)
    state = optimizer.state[params[0]]
    del state["exp_avg_sq_floor"]  # as in an optimizer that was pickled by an earlier version
    with pytest.raises(ValueError, match="no exp_avg_sq_floor"):
        train(optimizer, params, 1)


@pytest.mark.parametrize("damage", ["NaN", "infinite when squared", "negative", "too few"])
def test_damage_in_earlier_state_is_found(damage):
    saved, _ = saved_as(2)
    key = "exp_avg_sq_absmax"
    scales = saved["state"][1][key]
    worse = {"NaN": scales * float("nan"), "infinite when squared": scales + 1e30, "negative": -scales}
    saved["state"][1][key] = worse.get(damage, scales[:-1])
    _, optimizer = optimizer_of(2)
    with pytest.raises(ValueError, match=rf"parameter 1 of group 0.*{key}"):
        optimizer.load_state_dict(saved)
    assert not optimizer.state


@pytest.mark.parametrize("flat", [False, True])
def test_files_of_distributed_checkpoints(flat, tmp_path):
    """torch.distributed.checkpoint reads only keys that the optimizer has: it misses floors in files of format 2, and
    says so. Told to leave what is missing, it leaves floors that have nothing to do with the codes: they do not count.
    (Not of a flat checkpoint, which torch strips of what tells old codes from new ones.)
    """
    saved, numbers = saved_as(2)
    net = torch.nn.ParameterList(parameters(SHAPES[2]))
    optimizer = pyadamw.AdamW8bit(net.parameters(), amsgrad=True, percentile_clipping=50, min_8bit_size=500)
    train(optimizer, list(net), 1)
    named = {i: str(i) for i in range(3)}
    nested = {
        "state": {named[i]: entry for i, entry in saved["state"].items()},
        "param_groups": [{**group, "params": list(named.values())} for group in saved["param_groups"]],
    }
    options = state_dict.StateDictOptions(flatten_optimizer_state_dict=flat)
    for group in nested["param_groups"]:
        # Options that came later: torch's flat checkpoints must have them.
        group.update(master_weight_bits=None, max_grad_norm=None, error_if_nonfinite=False)
    stored = flattened(nested) if flat else nested
    dcp.save({"optimizer": stored}, checkpoint_id=tmp_path)
    wanted = state_dict.get_optimizer_state_dict(net, optimizer, options=options)
    with pytest.raises(BaseException, match=r"Missing key .*exp_avg_sq_floor"):
        dcp.load({"optimizer": copy.deepcopy(wanted)}, checkpoint_id=tmp_path)
    if flat:
        with pytest.raises((KeyError, ValueError), match="exp_avg_sq_floor"):  # the same without files
            state_dict.set_optimizer_state_dict(net, optimizer, stored, options=options)
        return
    partly = planner.DefaultLoadPlanner(allow_partial_load=True)
    dcp.load({"optimizer": wanted}, checkpoint_id=tmp_path, planner=partly)
    state_dict.set_optimizer_state_dict(net, optimizer, wanted, options=options)
    assert_numbers(list(net), optimizer, numbers)


def flattened(nested):
    flat = {f"state.{n}.{key}": value for n, entry in nested["state"].items() for key, value in entry.items()}
    for group in nested["param_groups"]:
        for name in group["params"]:
            flat.update({f"param_groups.{name}.{key}": value for key, value in group.items() if key != "params"})
    return flat


def test_codes_of_today_are_not_taken_for_earlier_ones():
    """Whatever other number stands in the groups: the marks of today's state dicts count."""
    params = parameters([(40, 300)])
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["pyadamw_format"] = 2
    other = pyadamw.AdamW8bit(clones(params))
    other.load_state_dict(saved)
    for one, two in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert {key: bits(value) for key, value in one.items()} == {key: bits(value) for key, value in two.items()}
    assert decoded(optimizer.state[params[0]]).abs().max() > 0
