"""Owns the laws of the planner about how it shows what it found: the table, JSON, the picture, the command."""

import json
import struct

import pytest
from forked import run

import pyadamw
from pyadamw import cli

GIB = 1 << 30


@pytest.fixture
def command(capsys):
    """A function that does what `python -m pyadamw plan` does: (exit status, output, errors)."""

    def run(*arguments):
        try:
            status = cli.main(["plan", *map(str, arguments)])
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize("options", [{}, {"gpu": "24GiB"}, {"gpu": "80GiB", "processes": 8, "dtype": "fp32"}])
@pytest.mark.parametrize("model", ["7B", "405B", 1000, 17])
def test_one_screen(model, options):
    """At most 32 lines of at most 100 columns, whatever the size."""
    lines = str(pyadamw.plan(model, **options)).splitlines()
    assert len(lines) <= 32 and max(map(len, lines)) <= 100, "\n".join(lines)


def test_json_and_table_agree(command):
    """The numbers of each row of the table are those of JSON, rounded to its unit; so are the marks and the code."""
    arguments = ["7B", "--gpu", "24GiB"]
    (status, text, _), (_, data, _) = command(*arguments), command(*arguments, "--json")
    data, lines = json.loads(data), text.splitlines()
    assert status == 0 and text == f"{pyadamw.plan('7B', gpu='24GiB')}\n"
    start = next(number for number, line in enumerate(lines) if line.startswith("optimizer")) + 1
    table = [lines[number] for number in range(start, lines.index("", start))]
    assert len(table) == 12
    ours = {}
    for choice in data["choices"]:
        name = {"pyadamw": "", "torch.optim": "torch ", "bitsandbytes.optim": "bnb "}[choice["package"]]
        name += choice["optimizer"].removeprefix("Paged") + {"bfloat16": " bf16", "float32": " fp32"}[choice["dtype"]]
        name += f"/{choice['master_weight_bits']}" if choice["master_weight_bits"] else ""
        ours.setdefault(name, {})[choice["paged"], choice["in_backward"]] = choice
    for line in table:
        variants = ours[line[:20].strip()]
        plain, cells = variants[False, False], line[20:].split()
        kinds = ("weights", "gradients", "remainder", "state")
        expected = [f"{plain['bytes_per_parameter']:.2f}", *(f"{plain[kind] / GIB:.2f}" for kind in kinds)]
        for variant in ((False, False), (False, True), (True, False), (True, True)):
            choice = variants.get(variant)
            mark = {"yes": "*", "tight": "!", "no": ""}[choice["fits"]] if choice else ""
            expected.append(f"{choice['device'] / GIB:.2f}{mark}" if choice else "-")
        expected.append(f"{variants[True, False]['host'] / GIB:.2f}" if (True, False) in variants else "-")
        assert cells == expected
        for choice in variants.values():
            parts = sum(choice[kind] for kind in (*kinds, "windows"))
            assert choice["device"] + choice["host"] == parts
    assert text.endswith(data["code"] + "\n")
    assert data["choices"][data["best"]]["fits"] == "yes"


@pytest.mark.parametrize("gpu", [(), ("--gpu", "24GiB")])
def test_picture(tmp_path, command, gpu):
    """--plot writes a picture, larger than a screen is small, and the table all the same."""
    file = tmp_path / "plan.png"
    status, text, _ = command("3B", *gpu, "--plot", file)
    content = file.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert status == 0 and "AdamW8bit" in text
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and width > 1500 and height > 600 and len(content) > 20_000


def test_wrong_commands(tmp_path, command):
    """`error: ...` and status 1, before anything is written; 2 for a wrong use of the command."""
    for arguments, message in (
        (["none/such"], "error: none/such: no such file or folder"),
        (["7B", "--gpu", "much"], "error: gpu = 'much'"),
        (["7B", "--processes", "0"], "error: processes = 0"),
        (["7B", "--plot", tmp_path / "plan.docx"], "the name of a picture must end in one of"),
        (["7B", "--plot", tmp_path / "none" / "plan.png"], "No such file or directory"),
        ([tmp_path], "has neither *.safetensors nor a config.json"),
    ):
        status, text, errors = command(*arguments)
        assert (status, text) == (1, "") and message in errors and errors.startswith("error: ")
    assert command("7B", "--dtype", "fp8")[0] == 2 and command()[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_the_command():
    """`python -m pyadamw plan` is that function; it imports nothing that takes long beside torch."""
    script = (
        "import runpy, sys; sys.argv[1:] = ['plan', '7B', '--gpu', '24GiB']\n"
        "try: runpy.run_module('pyadamw', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as error: assert error.code == 0\n"
        "heavy = 'torch._dynamo', 'torch.distributed.tensor', 'transformers', 'matplotlib', 'safetensors'\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = run(script, modules=("torch",))
    text, _, heavy = done.stdout.rstrip().rpartition("\n")
    assert (done.returncode, text, heavy) == (0, str(pyadamw.plan("7B", gpu="24GiB")), "[]"), done.stderr
