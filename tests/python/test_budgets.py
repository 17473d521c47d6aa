"""Owns the laws of ci/budgets: what it reads in machine code stands there, and each regression is found."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "ci"))

import kernel_budgets  # noqa: E402
import sass  # noqa: E402

WHEELS = ROOT / ".venv" / "cuda"
needs_compiler = pytest.mark.skipif(
    not WHEELS.exists(), reason="the compilers of the kernels are not here: ci/venv cuda"
)

# A loop of 9 instructions around which the cheapest way takes 7: the call and its move are a slow path, and so is the
# store by bytes. The subroutine has a loop of its own, which is nobody's main loop.
LISTING = """
	//----- nvinfo : EIATTR_REGCOUNT
        /*0004*/ 	.word	index@(step)
        /*0008*/ 	.word	0x00000028
	//----- nvinfo : EIATTR_FRAME_SIZE
        /*0004*/ 	.word	index@(step)
        /*0008*/ 	.word	0x00000010

//--------------------- .text.step --------------------------
	.section	.text.step,"ax",@progbits
step:
.text.step:
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/               @P0 EXIT ;
        /*0020*/                   STL [R1], R0 ;
.L_x_1:
        /*0030*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0040*/                   BSSY B0, `(.L_x_2) ;
        /*0050*/              @!P1 BRA `(.L_x_3) ;
        /*0060*/                   MOV R20, 0x70 ;
        /*0070*/                   CALL.REL.NOINC `($slowpath) ;
.L_x_3:
        /*0080*/                   BSYNC B0 ;
.L_x_2:
        /*0090*/               @P3 BRA `(.L_x_4) ;
        /*00a0*/                   STG.E.128 desc[UR4][R2.64], R4 ;
.L_x_5:
        /*00b0*/              @!P2 BRA `(.L_x_1) ;
        /*00c0*/                   EXIT ;
.L_x_4:
        /*00d0*/                   STG.E.U8 desc[UR4][R2.64], R4 ;
        /*00e0*/                   BRA `(.L_x_5) ;
$slowpath:
        /*00f0*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0100*/                   STG.E.128 desc[UR4][R2.64], R4 ;
        /*0110*/               @P4 BRA `($slowpath) ;
        /*0120*/                   RET.REL.NODEC R20 `(step) ;
.L_x_9:
        /*0130*/                   BRA `(.L_x_9);
        /*0140*/                   NOP;
"""

KERNEL = """
#include "%s"
struct Params {
  const char *from;
  char *to;
  long long blocks;
  float x[8];
};
template <int Words>
static __device__ __forceinline__ void body(const Params &a) {
  using namespace adamw::gpu;
  for (long long b = block_id(); b < a.blocks; b += block_count()) {
    std::uint32_t w[8];
    for (int i = 0; i < 8; i += Words) load_words<Words>(a.from + b * 1024 + lane_id() * 32 + i * 4, w + i);
    for (int i = 0; i < 8; ++i) {
#ifdef LONG
      w[i] = __float_as_uint(__uint_as_float(w[i]) * a.x[i] + a.x[7 - i]);
#endif
#ifdef SPILL
      std::uint32_t far[64];
      for (int k = 0; k < 64; ++k) far[k] = w[k & 7] * k;
      w[i] = far[w[i] & 63];
#endif
      w[i] ^= 12345;
    }
    for (int i = 0; i < 8; i += Words) store_words<Words>(a.to + b * 1024 + lane_id() * 32 + i * 4, w + i);
  }
}
ADAMW_KERNEL ADAMW_LAUNCH_BOUNDS(256, 4) step(ADAMW_PARAMS Params a) {
#ifdef NARROW
  body<1>(a);
#else
  body<4>(a);
#endif
}
"""


def test_the_common_path():
    """Registers, stack, spills and the cheapest way around the main loop are those of a listing counted by hand."""
    (kernel,) = sass.kernels(LISTING)
    assert (kernel.name, kernel.registers, kernel.frame, kernel.spills) == ("step", 0x28, 0x10, 1)
    assert kernel.loops == [
        sass.Loop(instructions=7, spills=0, accesses=2, wide_loads=1, wide_stores=1, fetches=0, ahead=0)
    ]


def _decoded(*loop):
    """The instructions of (code, scoreboard that it sets or 7, scoreboards that it waits for), as nvdisasm -hex lists
    them."""
    lines = []
    for number, (code, board, *waits) in enumerate(loop):
        upper = (board << 5 | sum(1 << 11 + b for b in waits)) << 41
        lines += [
            f"        /*{16 * number:04x}*/                   {code} ; /* 0x{36:016x} */",
            f"  /* 0x{upper:016x} */",
        ]
    return sass.parse("\n".join(lines))[0]


def test_reading_ahead():
    """From a load to the first instruction that waits for its scoreboard, in this round of the loop or in the next."""
    load, other = ("LDG.E.128 R4, desc[UR4][R2.64]", 5), ("FADD R1, R1, R1", 7)
    use, lookup = ("FADD R9, R4, R1", 7, 5), ("LDS R8, [R7]", 5)
    assert [i.board for i in _decoded(load, use)] == [5, 7]
    assert sass.ahead(_decoded(load, use)) == 0
    assert sass.ahead(_decoded(other, load, other, other, use)) == 2
    assert sass.ahead(_decoded(use, load, other, other, other)) == 3
    # Who waits for the lookup waits for the load, too.
    assert sass.ahead(_decoded(use, load, other, lookup, ("FADD R8, R8, R1", 7, 5), other, other)) == 2


def test_no_way_around_a_call():
    """A call that nothing avoids is not taken for a slow path."""
    (kernel,) = sass.kernels(LISTING.replace("@!P1 BRA `(.L_x_3)", "NOP"))
    assert kernel.loops[0].instructions > sass.CALL_COST


def test_record_and_aims():
    """What is recorded passes, what is worse fails with the figure; an aim is reported, and not recorded over."""
    good = {
        "registers": 40,
        "spills": 0,
        "stack": 0,
        "instructions": 60.5,
        "loop_spills": 0,
        "accesses": 6,
        "wide_loads": 2,
        "wide_stores": 1,
    }
    measured = {"step": {"sm_90": {"12": good, "13": {**good, "registers": 42}}}}
    empty = {"aims": {"sm_90": {"st*": {"instructions": 55, "spills": 0}}}, "kernels": {}}
    budgets = kernel_budgets.recorded(measured, empty, partial=False)
    assert budgets["kernels"]["step"]["sm_90"]["registers"] == 42
    assert json.loads(kernel_budgets.dump(budgets)) == budgets
    assert kernel_budgets.check(measured, budgets, partial=False) == []
    for name, value, said in (
        ("registers", 43, "43 registers; the budget is 42"),
        ("spills", 1, "1 accesses of local memory, all paths (spills); the budget is 0"),
        ("loop_spills", 1, "1 accesses of local memory in the main loop; the budget is 0"),
        ("instructions", 60.6, "60.6 instructions an element in the main loop; the budget is 60.5"),
        ("wide_stores", 0, "0 128-bit stores in the main loop; the budget is 1"),
    ):
        worse = {"step": {"sm_90": {"12": {**good, name: value}}}}
        assert kernel_budgets.check(worse, budgets, partial=True) == [f"step, sm_90, CUDA 12: {said}"]
    assert budgets["aims"] == empty["aims"]
    said = list(kernel_budgets.table(measured, budgets["aims"]))
    assert "step, sm_90, CUDA 12: instructions 60.5, aim 55: 5.5 more (10%)" in said
    assert "step, sm_90, CUDA 12: spills 0, aim 0: reached" in said
    assert list(kernel_budgets.distances({"spills": 3}, {"spills": 0})) == ["spills 3, aim 0: 3 more"]
    recorded = {"kernels": {"step": {"sm_90": {**good, "ahead": 400}}}}
    lines = kernel_budgets.check(measured, recorded, partial=True)
    assert "CUDA 12: 0 instructions between a load of the next block and the first that waits for one" in lines[0]
    said = kernel_budgets.check({}, budgets, partial=False)
    assert "is of no kernel" in said[0]
    assert "there is no such kernel" in said[1]
    assert "no budget is recorded" in kernel_budgets.check(measured, empty, partial=False)[0]


@needs_compiler
@pytest.mark.parametrize("major", ("12", "13"))
def test_mutants_are_found(tmp_path, capsys, major):
    """A kernel passes its own budget; one that spills, accesses narrowly or computes more fails with the figure."""
    source, budgets = tmp_path / "step.cu", tmp_path / "budgets.json"
    source.write_text(KERNEL % (ROOT / "libadamw" / "gpu" / "kernels" / "device.h"))
    common = ["--source", str(source), "--budgets", str(budgets), "--cache", str(tmp_path), "--major", major]
    assert kernel_budgets.main(["record", *common]) == 0
    assert kernel_budgets.main(common) == 0
    for mutant, said in (
        ("SPILL", "accesses of local memory"),
        ("NARROW", "no main loop with 128-bit accesses"),
        ("LONG", "instructions an element"),
    ):
        capsys.readouterr()
        assert kernel_budgets.main([*common, "--define", f"{mutant}=1"]) == 1
        printed = capsys.readouterr().out
        for architecture in kernel_budgets.ARCHITECTURES:
            lines = [x for x in printed.splitlines() if x.startswith(f"FAILED: step, sm_{architecture}, CUDA {major}")]
            assert any(said in line for line in lines), (mutant, architecture, printed)


@needs_compiler
def test_a_mistake_in_a_kernel_is_told(tmp_path, capfd):
    """A kernel that does not compile is an error with file and line, and leaves nothing behind."""
    source = tmp_path / "step.cu"
    source.write_text('extern "C" __global__ void step() {\n  nonsense();\n}\n')
    target = tmp_path / "kernels.fatbin"
    arguments = [str(source), "--major", "12", "--wheels", str(WHEELS), "--output", str(target)]
    assert kernel_budgets.compile_kernels.main(arguments) == 1
    assert f"{source}(2): error" in capfd.readouterr().err
    assert not target.exists()
