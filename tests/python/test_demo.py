"""Owns the laws of `python -m pyadamw demo`: it ends with table and picture, and what it cannot use is one line."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pyadamw import cli
from pyadamw.demo import app, corpus, memory, model, report, runs, text, training

PROSE = "It is a truth universally acknowledged, that a single man in possession of a good fortune.\n" * 100


def command(*arguments):
    return [sys.executable, "-m", "pyadamw", "demo", *map(str, arguments)]


def demo(*arguments, **options):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False, **options)


@pytest.fixture
def prose(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_text(PROSE, encoding="utf-8")
    return path


def test_ends_with_a_table_and_a_picture_of_what_it_measured(tmp_path, monkeypatch, capsys):
    """Every optimizer is in the table, the picture is a PNG in the folder asked for; neither the table's markup nor the
    picture's mathematics takes the name of the file for a command. State is 8 bytes a parameter in 32 bits, near 2 in 8
    bits, and 1 more for bf16 weights, of at least a million parameters; losses agree, and can be drawn in every format.
    """
    path = tmp_path / "[bold]:smile: $\\frac$ {x}.txt"
    path.write_text(PROSE, encoding="utf-8")
    drawn, draw = [], report.draw
    monkeypatch.setattr(report, "draw", lambda *arguments: drawn.append(arguments) or draw(*arguments))
    assert cli.main(["demo", "--text", str(path), "--steps", "12", "--out", str(tmp_path / "new" / "folder")]) == 0
    printed = capsys.readouterr().out
    assert repr(path.name)[1:8] in printed
    for name in runs.NAMES:
        assert f"{name}: 12 steps" in printed
        assert any(line.strip().startswith(name) and line.count(".") >= 3 for line in printed.splitlines()), name
    picture = tmp_path / "new" / "folder" / app.PICTURE_NAME
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert str(picture) in printed.replace("\n", "")
    ((results, _, _),) = drawn
    for result in results:
        assert [step for step, _ in result.curve] == sorted(training.validation_steps(12))
        assert result.parameters >= 1_000_000
        assert 0 < result.step_milliseconds < 1000
        # Weights and gradients alone are so much; a gibibyte would be the measurement of something else.
        assert 2 * result.weight_bytes < result.peak_memory - result.memory_before < 1 << 30
    ours, theirs = results[1:], results[0]
    assert theirs.curve[-1][1] < theirs.curve[0][1] - 0.5
    assert [result.curve[-1][1] for result in ours] == pytest.approx([theirs.curve[-1][1]] * 3, abs=0.1)
    assert [result.state_bytes / result.parameters for result in results] == pytest.approx([8, 8, 2.06, 3.06], abs=0.03)
    assert [result.weight_bytes / result.parameters for result in results] == [4, 4, 4, 2]
    for kind in (".svg", ".pdf"):
        draw(results, "a $\\frac$ title", tmp_path / f"picture{kind}")
        assert (tmp_path / f"picture{kind}").stat().st_size > 1000


BAD_FILES = {
    "missing": (None, "No such file"),
    "empty": (b"", "is empty"),
    "blank": (b" \r\n" * 9000, "is empty"),
    "short": (b"word " * 100, "too short: 500 characters"),
    "NUL bytes": (b"\x89PNG\0\0" * 9000, "binary"),
    "not UTF-8": (b"caf\xe9 " * 9000, "not UTF-8"),
    "cut inside a character": (b"a" * 9000 + b"\xe2\x82", "not UTF-8"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_one_line_and_status_2(kind, tmp_path, capsys):
    content, message = BAD_FILES[kind]
    path = tmp_path / "text\nfile.txt"
    if content is not None:
        path.write_bytes(content)
    refused(["--text", str(path)], message, capsys)


def test_a_folder_as_text_is_one_line_and_status_2(tmp_path, capsys):
    refused(["--text", str(tmp_path)], "directory", capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_one_line_and_status_2(prose, capsys):
    prose.chmod(0)
    refused(["--text", str(prose)], "Permission denied", capsys)


def test_a_picture_that_cannot_be_written_is_known_before_training(prose, capsys):
    refused(["--out", str(prose / "picture.png")], "cannot", capsys)


def test_a_picture_of_an_unknown_kind_is_refused(capsys):
    refused(["--out", "picture.jpg"], ".png, .svg, .pdf, not '.jpg'", capsys)


@pytest.mark.parametrize("out", ["new/picture.svg", "new/picture.PDF"])
def test_the_picture_goes_into_the_file_that_is_named(out, tmp_path):
    assert app._picture_path(str(tmp_path / out)) == tmp_path / out
    assert (tmp_path / "new").is_dir()


def test_a_missing_extra_names_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setattr(app, "EXTRAS", ("rich", "no_such_module"))
    refused([], 'no_such_module: pip install "pyadamw[demo]"', capsys)


def refused(arguments, message, capsys):
    parser = argparse.ArgumentParser()
    app.add_arguments(parser)
    status = app.run(parser.parse_args(arguments))
    output = capsys.readouterr()
    assert (status, output.out) == (2, "")
    assert output.err.startswith("pyadamw demo: ")
    assert message in output.err
    assert output.err.count("\n") == 1


def test_the_command_itself_refuses_a_bad_file(tmp_path):
    """The whole way, through the command line: status 2, one line, no traceback."""
    done = demo("--text", tmp_path / "missing.txt")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pyadamw demo: cannot read ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--steps", "many"], ["--seed", "-1"], ["--seed", str(1 << 63)]])
def test_wrong_numbers_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["demo", *wrong])
    assert exit_.value.code == 2
    assert wrong[1] in capsys.readouterr().err


def test_a_run_that_fails_says_why():
    result = runs.Result("no such optimizer")
    with pytest.raises(text.DemoError, match=r"no such optimizer run failed .*KeyError"):
        list(runs.run(result, 5, 0, PROSE))


def test_ctrl_c_ends_the_child_and_leaves_quietly(prose, tmp_path):
    arguments = command("--text", prose, "--steps", 100_000, "--out", tmp_path)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A session of its own: the signal goes to the parent alone, as `kill` sends it, so that it must end its child.
    # A runner in the background may ignore the signal, and its children would with it: `env` undoes that.
    listening = ["env", "--default-signal=INT", *arguments]
    process = subprocess.Popen(listening, start_new_session=True, **pipes)
    try:
        deadline = time.monotonic() + 300
        while not (children := members(process.pid) - {process.pid}) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert children, "no training began"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors == "pyadamw demo: interrupted\n"
        assert not members(process.pid)
    finally:
        for pid in members(process.pid):
            os.kill(pid, signal.SIGKILL)


def test_an_interrupt_while_the_child_is_started_ends_it_too(monkeypatch):
    started, popen = [], subprocess.Popen

    def interrupted(*arguments, **options):
        started.append(popen(*arguments, **options))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(runs.run(runs.Result("AdamW8bit"), 5, 0, PROSE))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert started[0].returncode == -signal.SIGTERM


def members(session):
    """The running processes of a session."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has just ended.
        if int(fields[3]) == session and fields[0] != "Z":
            found.add(int(entry.parent.name))
    return found


def test_the_same_seed_gives_the_same_batches_and_another_seed_others():
    def first(seed):
        batches = corpus.Corpus(PROSE, 16).training_batches(4, seed)
        return torch.stack([inputs for inputs, _ in (next(batches) for _ in range(10))])

    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))


def test_targets_are_the_next_characters_and_validation_is_held_out():
    """Every text position is its own character here, so that a batch tells where it was cut."""
    body = corpus.Corpus("".join(map(chr, range(0x4E00, 0x4E00 + 250))), 16)
    inputs, targets = next(body.training_batches(8, 0))
    assert torch.equal(targets, inputs + 1)
    assert inputs.min() >= 1
    assert targets.max() <= 225
    assert len(body.validation) == 25
    ((held, _),) = body.validation_batches(4, 100)
    assert held.shape == (1, 16)
    assert (held == corpus.UNKNOWN).all()


def test_rare_characters_share_one_number():
    common = "".join(map(chr, range(0x4E00, 0x4E00 + 255))) * 3
    body = corpus.Corpus(common + "\U0001f600" + common, 16)
    assert body.vocabulary == corpus.MAX_VOCABULARY
    assert body.training[len(common)] == corpus.UNKNOWN
    assert (body.training[: len(common)] != corpus.UNKNOWN).all()


def test_validation_windows_are_spread_and_never_overlap():
    body = corpus.Corpus("ab" * 50_000, 64)
    body.validation = torch.arange(10_000)
    starts = torch.cat([inputs[:, 0] for inputs, _ in body.validation_batches(16, 50)])
    assert len(starts) == 50
    assert starts.diff().min() >= 64
    assert starts[-1] > 9_000


def test_the_model_sees_no_future_character():
    torch.manual_seed(0)
    net = model.GPT(20, model.Shape(context=16, width=32, layers=2, heads=2))
    torch.nn.init.normal_(net.head.weight)
    tokens = torch.randint(20, (1, 16))
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 20

    def losses(inputs):
        # Each position's own loss: the others are left out by cross_entropy's ignore_index.
        wanted = torch.full((16, 16), -100)
        wanted[range(16), range(16)] = 5
        return torch.stack([net(inputs, row[None]) for row in wanted])

    before, after = losses(tokens), losses(changed)
    assert torch.equal(before[:10], after[:10])
    assert (before[10:] != after[10:]).all()


def test_tensor_bytes_counts_each_storage_once_and_whole():
    whole = torch.zeros(100)
    state = {
        torch.nn.Parameter(torch.zeros(9)): {"a": whole[:10], "b": [whole[50:], torch.zeros(3, dtype=torch.uint8)]}
    }
    assert memory.tensor_bytes(state) == 403


def test_peak_memory_sees_what_has_been_freed():
    before = memory.reset_peak_memory()
    block = torch.ones(16 << 20)
    del block
    assert memory.peak_memory() - before > 60 << 20


def test_a_long_file_is_read_up_to_the_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(text, "MAX_BYTES", 30_001)
    path = tmp_path / "long.txt"
    path.write_text("\N{EURO SIGN}" * 20_000, encoding="utf-8")
    assert text.load_text(str(path))[0] == "\N{EURO SIGN}" * 10_000


def test_the_default_text_is_in_this_python():
    found, source = text.load_text(None)
    assert source == "pydoc_data.topics"
    assert len(found) > 400_000
