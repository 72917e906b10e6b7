"""`relprop explain --profile`: where the time of one explanation goes."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from typer.testing import Result

import relprop
from relprop.cli.explain import explain
from relprop.cli.work.profile import AROUND, BACKWARD, FORWARD, GRAPH, LINES, Amounts, account, profiled
from relprop.data import mnist
from relprop.view.mosaic import mosaic, save_png
from shell import runner

run = runner(explain)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    ).eval()


# What is added up


@dataclass(eq=False)
class Event:
    """An event of the profiler, as far as it is read."""

    id: int
    name: str
    start: int
    end: int
    own: float
    cpu_parent: "Event | None" = None
    sequence_nr: int = -1

    @property
    def time_range(self) -> SimpleNamespace:
        return SimpleNamespace(start=self.start, end=self.end, elapsed_us=lambda: self.end - self.start)

    @property
    def self_cpu_time_total(self) -> float:
        return self.own


def recorded() -> list[Event]:
    """One convolution in one module, its node, and a sum before them; in microseconds."""
    whole = Event(0, "relprop explanation", 0, 10000, 2000)
    check = Event(1, "aten::sum", 10, 1010, 1000, whole)
    module = Event(2, "relprop module conv", 2000, 6000, 500, whole)
    outer = Event(3, "aten::conv2d", 2100, 5900, 100, module)
    python = Event(4, "PythonDispatchMode", 2200, 5800, 900, outer)
    kernel = Event(5, "aten::mkldnn_convolution", 2300, 4800, 2500, python)
    attach = Event(6, "Attach", 5000, 5100, 0, python, sequence_nr=7)
    node = Event(7, "autograd::engine::evaluate_function: AttachBackward", 7000, 10000, 100, whole, 7)
    back = Event(8, "AttachBackward", 7100, 10000, 900, node, 7)
    again = Event(9, "aten::mkldnn_convolution", 7200, 9200, 2000, back)
    other = Event(10, "aten::sum", 20000, 30000, 10000)
    return [other, again, back, node, attach, kernel, python, outer, module, check, whole]


def test_phases_modules_operations_and_kernels_get_what_events_take_by_themselves():
    found = account(recorded(), alone=8.0)
    assert (found.alone, found.total) == (8.0, 10.0)
    assert found.phases == {
        FORWARD: pytest.approx((1.4, 2.6)),
        BACKWARD: pytest.approx((0.9, 2.1)),
        AROUND: pytest.approx((2.0, 1.0)),
    }
    assert found.modules == {"conv": pytest.approx((4.0, 3.0))}
    assert found.operations == {"conv2d": pytest.approx((3.5, 3.0))}
    assert found.kernels == {
        "mkldnn_convolution": (pytest.approx(4.5), 2),
        "sum": (1.0, 1),
        "conv2d": (pytest.approx(0.1), 1),
    }


def test_without_modules_and_nodes_there_is_one_phase():
    whole = Event(0, "relprop explanation", 0, 100, 60)
    found = account([whole, Event(1, "aten::mul", 10, 50, 40, whole)], alone=0.1)
    assert found.phases == {GRAPH: pytest.approx((0.06, 0.04))}
    assert "module of the model" not in str(found)


def test_tables_have_the_largest_first_and_say_what_they_leave_out():
    found = account(recorded(), alone=8.0)
    lines = str(found).splitlines()
    assert lines[0] == (
        "One explanation takes 8.0 ms, and 10.0 ms while torch's profiler records it. Of these:"
    )
    assert lines[2].split() == ["phase", "Python,", "ms", "torch,", "ms", "of", "all"]
    assert re.search(r"^mkldnn_convolution +4\.50 +2 +45\.0%\nsum +1\.00 +1 +10\.0%$", str(found), re.M)
    many = {f"m{i}": Amounts(i, 0) for i in range(LINES + 3)}
    told = str(type(found)(1, 1, {}, {}, many, {}))
    assert "... 3 more" in told
    assert told.index(f"m{LINES + 2}") < told.index("m5")


# What is recorded


def test_a_recorded_explanation_adds_up_and_names_modules_and_operations():
    model, x = network(), torch.rand(2, 1, 8, 8)
    explainer = relprop.Explainer(model)
    found = profiled(lambda: explainer(x, target=0), model)
    assert list(found.phases) == [FORWARD, BACKWARD, AROUND]
    assert sum(one.both for one in found.phases.values()) == pytest.approx(found.total, rel=0.02)
    assert set(found.modules) >= {"0", "1", "2", "4"}
    assert set(found.operations) >= {"conv2d", "batch_norm", "relu", "linear"}
    assert found.operations["linear"].second > 0, "the layer's node belongs to it"
    # The convolution and its batch norm are one layer, whose node is made where the batch norm is called.
    assert found.operations["conv2d"].second == 0 < found.operations["batch_norm"].second


def test_a_graph_is_recorded_and_stays_in_use():
    model, x = network(), torch.rand(2, 1, 8, 8)
    compiled = relprop.Explainer(model).compile(x, target=0)
    found = profiled(lambda: compiled(x, target=0), None)
    assert list(found.phases) == [GRAPH]
    assert not found.modules
    assert found.kernels


def test_no_hook_remains_after_an_error_either():
    model = network()

    def failing() -> None:
        model(torch.rand(1, 1, 8, 8))
        if any(module._forward_hooks for module in model.modules()):
            raise RuntimeError("while it is recorded")

    with pytest.raises(RuntimeError, match="while it is recorded"):
        profiled(failing, model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# The command


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    save_png(tmp_path / "digit.png", mosaic(mnist.test_set().images[1318][None, None] / 255, "grey"), {})
    return tmp_path / "digit.png"


def profile_in(result: Result) -> str:
    assert result.exit_code == 0, result.output
    first, _, rest = result.stdout.partition("\n\n")
    assert first.count("\n") == 0, "the lines of the pictures come first"
    return rest


@pytest.mark.filterwarnings("ignore:the explained score is negative:relprop.errors.ScoreWarning")
def test_the_command_prints_the_tables_after_the_line_of_the_picture(picture):
    told = profile_in(run("mnist-cnn", picture, "--rules", "deep-taylor", "--profile"))
    heads = [line.split("  ")[0] for line in told.splitlines() if line.endswith("of all")]
    assert heads == ["phase", "module of the model", "operation of the model", "operation of torch"]
    assert re.search(r"^c3 ", told, re.M)
    assert picture.with_name("digit-heatmap.png").exists()


def test_with_compile_it_is_the_graph_that_is_recorded(picture):
    told = profile_in(run("mnist-cnn", picture, "--profile", "--compile"))
    assert re.search(f"^{GRAPH} ", told, re.M)
    assert "module of the model" not in told


def test_without_a_picture_that_can_be_explained_there_is_no_table(tmp_path):
    result = run("mnist-cnn", tmp_path / "none.png", "--profile")
    assert result.exit_code == 2
    assert "phase" not in result.output
