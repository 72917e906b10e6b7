"""`make bench`: how ways are measured, what is kept of it, and what the command does."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import __main__ as program
from benchmarks import measuring, subjects
from benchmarks.case import BASE_OF_LXT, Case, Row, Subject
from benchmarks.cases import CASES, PARTS
from benchmarks.lxt import LXT
from benchmarks.machine import OtherWork, description, importing
from benchmarks.measuring import FEWEST, Cost, Local, Measured, measure
from benchmarks.results import Found, Results
from benchmarks.ways import RULES, WAYS

GRADIENT = Row("gradient")


def tiny() -> Subject:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    return Subject(model, torch.rand(2, 6), target=1, score=lambda y: y[:, 1], bounds=(0.0, 1.0))


PLAN = {
    "gradient": ("",),
    "relprop": ("epsilon", "z+", "deep-taylor"),
    "graph": ("epsilon",),
    "LXT": ("epsilon",),
}
CASE = Case("tiny", "two layers", "digits", tiny, PLAN, compiled=[Row("inductor", "epsilon")])


class Fake:
    """A way that takes no time, and says when it ran."""

    warms_up = True

    def __init__(self, name: str, log: list[str], seconds: float = 0.001) -> None:
        self.name, self.log, self.taken = name, log, seconds

    def seconds(self) -> float:
        self.log.append(self.name)
        return self.taken

    def cost(self) -> Cost:
        self.log.append(f"{self.name} cost")
        return Cost(10, None)


def builders(**ways):
    return {Row(name): (lambda way=way: way) for name, way in ways.items()}


@pytest.fixture
def options(tmp_path):
    """The program's options, for the tiny case alone."""

    def run(*arguments: object) -> int:
        return program.main(["--out", str(tmp_path / "found.json"), "--lxt", "none", *map(str, arguments)])

    run.out = tmp_path / "found.json"
    return run


# Measuring


def test_ways_warm_up_are_counted_and_then_take_turns_that_each_begins():
    log: list[str] = []
    found = measure(builders(a=Fake("a", log), b=Fake("b", log)), repeat=2, budget=1)
    assert log == ["a", "a cost", "b", "b cost", *"ab", *"ba"]
    assert [len(each.seconds) for each in found.values()] == [2, 2]
    assert found[Row("a")].cost == Cost(10, None)


def test_what_keeps_nothing_is_not_warmed_up():
    log: list[str] = []
    way = Fake("a", log)
    way.warms_up = False
    measure(builders(a=way), repeat=1, budget=1)
    assert log == ["a cost", "a"]


def test_short_cases_have_more_rounds_and_long_ones_fewer(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: float(next(clock)))
    long = measure(builders(a=Fake("a", [])), repeat=9, budget=1)
    assert len(long[Row("a")].seconds) == FEWEST
    clock = iter(i / 1e6 for i in range(10_000))
    short = measure(builders(a=Fake("a", [])), repeat=9, budget=1)
    assert len(short[Row("a")].seconds) == measuring.MOST


def test_a_way_that_takes_many_times_the_gradient_is_measured_in_few_rounds():
    found = measure(builders(gradient=Fake("", [], 0.5), slow=Fake("", [], 9.0)), repeat=6, budget=100)
    assert len(found[Row("slow")].seconds) == FEWEST
    assert len(found[GRADIENT].seconds) > FEWEST


def test_what_fails_is_told_and_the_others_go_on():
    class Failing(Fake):
        def seconds(self) -> float:
            if self.log.count("a") > 1:
                raise RuntimeError("no more\nand why")
            return super().seconds()

    def missing():
        raise ModuleNotFoundError("No module named 'peer'")

    log: list[str] = []
    ways = {Row("b"): lambda: Fake("b", log), Row("a"): lambda: Failing("a", log), Row("peer"): missing}
    found = measure(ways, repeat=2, budget=1)
    assert found[Row("a")].error == "RuntimeError: no more"
    assert found[Row("peer")].error == "ModuleNotFoundError: No module named 'peer'"
    assert len(found[Row("b")].seconds) == 2


def test_ways_of_relprop_are_compared_with_the_gradient():
    subject = tiny()
    rows = [row for row in CASE.rows(compiled=False) if row.way != "LXT"]
    ways = {row: (lambda row=row: Local(WAYS[row.way](subject, row.rules))) for row in rows}
    found = Found("", measure(ways, repeat=2, budget=1), took=1, other_work=0)
    assert not [each.error for each in found.rows.values() if each.error]
    assert found.time(GRADIENT) == 1
    assert found.products(Row("relprop", "epsilon")) == 1
    assert found.products(Row("graph", "epsilon")) == 1
    assert found.products(Row("relprop", "z+")) == pytest.approx(1.5)
    assert found.memory(Row("relprop", "epsilon")) > 0
    assert found.rows[Row("graph", "epsilon")].first > 0


def test_an_explanation_without_a_graph_is_no_figure_of_graphs():
    subject = tiny()
    drawing = Subject(lambda x: subject.model(x) + torch.rand(1), subject.x, target=1, score=subject.score)
    found = measure({Row("graph"): lambda: Local(WAYS["graph"](drawing, "epsilon"))}, repeat=1, budget=1)
    assert "without a graph" in found[Row("graph")].error


def test_rows_relative_to_what_failed_have_no_figure():
    rows = {GRADIENT: Measured(error="x"), Row("relprop"): Measured(1, [1.0, 2.0], Cost(1, 1))}
    found = Found("", rows, 1, 0)
    assert found.time(Row("relprop")) is found.memory(Row("relprop")) is found.time(Row("zennit")) is None
    assert found.quartiles(Row("relprop")) is None


def test_lxt_is_compared_with_the_gradient_in_a_process_like_its_own():
    rows = {GRADIENT: Measured(1, [2.0, 2.0]), Row("LXT", "cp-lrp"): Measured(1, [1.0, 3.0])}
    assert Found("", rows, 1, 0).time(Row("LXT", "cp-lrp")) == 1
    rows[BASE_OF_LXT] = Measured(1, [4.0, 4.0])
    assert Found("", rows, 1, 0).time(Row("LXT", "cp-lrp")) == 0.5
    assert Found("", rows, 1, 0).quartiles(Row("LXT", "cp-lrp")) == (0.375, 0.625)


# What is measured


def test_cases_have_names_of_their_own_known_parts_ways_and_rules():
    import relprop

    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.part for case in CASES} == set(PARTS)
    for case in CASES:
        rows = case.rows(compiled=True)
        assert rows[0] == GRADIENT
        assert len(set(rows)) == len(rows)
        assert {row.way for row in rows} <= {*WAYS, "LXT", BASE_OF_LXT.way}
        assert {row.rules for row in rows if row.rules} <= {*RULES, *relprop.PRESETS}


@pytest.mark.parametrize(
    "make",
    [
        lambda: subjects.llama(64, 5, 1),
        lambda: subjects.written_lstm(3),
        lambda: subjects.layer(nn.GRU, 2, 4, 8),
        lambda: subjects.digits("mnist-mlp", 2),
        lambda: subjects.picture("resnet18", 1, 32),
    ],
)
def test_scores_are_those_that_relprop_explains(make):
    torch.manual_seed(0)
    subject = make()
    explanation = WAYS["relprop"](subject, "epsilon")()
    assert torch.allclose(explanation.score, subject.output(subject.x), atol=1e-5)
    (gradient,) = [WAYS["gradient"](subject, "")()]
    assert gradient.shape == subject.x.shape


def test_checkpoints_change_no_gradient_and_leave_nothing_behind():
    subject = subjects.llama(64, 5, 2)
    plain, again = (WAYS[way](subject, "")() for way in ("gradient", "checkpointed gradient"))
    assert torch.allclose(plain, again, atol=1e-6)
    assert not [block for block in subject.model.model.layers if "forward" in vars(block)]
    relevance = [WAYS[way](subject, "cp-lrp")().relevance for way in ("relprop", "checkpointed relprop")]
    assert torch.allclose(*relevance, atol=1e-5)


def test_numpy_explains_the_same_digits():
    subject = subjects.digits("mnist-cnn", 2)
    own = WAYS["relprop"](subject, "deep-taylor")().relevance
    for way in ("NumPy", "NumPy of 2017"):
        maps = torch.as_tensor(WAYS[way](subject, "deep-taylor")()).reshape(own.shape)
        assert torch.allclose(own.double(), maps, atol=1e-4)


def test_the_machine_is_described():
    about = description()
    assert about["processor"]
    # The version of a package may lack what a build adds, as in 2.6.0+cu124.
    assert torch.__version__.startswith(about["versions"]["torch"].partition("+")[0])
    assert OtherWork()() >= 0
    assert 0 < importing(times=1) < 60
    assert LXT(Path("none"), threads=1).version() == ""


# What is kept


def test_results_come_back_as_they_were_written(tmp_path):
    rows = {
        GRADIENT: Measured(0.12345678, [0.5, 0.25], Cost(7, None)),
        Row("zennit", "z+"): Measured(error="no"),
    }
    results = Results({"tiny": Found("now", rows, 3.0, 0.25)}, {"now": {"cores": 2}, "before": {}})
    results.write(tmp_path / "found.json")
    back = Results.read(tmp_path / "found.json")
    assert back.runs == {"now": {"cores": 2}}, "runs of which nothing is left are dropped"
    assert back.cases["tiny"].rows[GRADIENT].seconds == [0.5, 0.25]
    assert back.cases["tiny"].rows[GRADIENT].first == 0.1235
    assert back.cases["tiny"].rows[Row("zennit", "z+")].error == "no"
    assert list(tmp_path.iterdir()) == [tmp_path / "found.json"], "no half of a file is left"


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "found.json").write_text('{"form": 0}')
    with pytest.raises(ValueError, match=r"found.json has no results of this program \(it has form 0"):
        Results.read(tmp_path / "found.json")
    assert not Results.read(tmp_path / "none.json").cases


# The command


def test_a_run_writes_every_case_and_replaces_it_when_it_is_measured_again(options, monkeypatch, capsys):
    other = Case("other", "the same", "digits", tiny, {"gradient": ("",)})
    monkeypatch.setattr(program, "CASES", (CASE, other))
    assert options("--quick") == 0
    stored = json.loads(options.out.read_text())
    assert list(stored["cases"]) == ["tiny", "other"]
    rows = {(row["way"], row["rules"]): row for row in stored["cases"]["tiny"]["rows"]}
    assert len(rows["graph", "epsilon"]["seconds"]) == 2
    assert "make bench" in rows["LXT", "epsilon"]["error"]
    assert ("inductor", "epsilon") not in rows, "nothing is compiled in a quick run"
    shown = capsys.readouterr().out
    assert "two layers" in shown
    assert "failed" in shown
    kept = stored["cases"]["tiny"]
    assert options("--quick", "--only", "other") == 0
    assert json.loads(options.out.read_text())["cases"]["tiny"] == kept


def test_ctrl_c_keeps_the_cases_that_are_done(options, monkeypatch, capsys):
    def interrupted() -> Subject:
        raise KeyboardInterrupt

    never = Case("never", "", "digits", interrupted, {"gradient": ("",)})
    monkeypatch.setattr(program, "CASES", (CASE, never))
    assert options("--quick") == 130
    assert list(json.loads(options.out.read_text())["cases"]) == ["tiny"]
    assert "interrupted: 1 of 2 cases are done" in capsys.readouterr().out


def test_a_case_that_cannot_be_made_is_told_and_the_others_go_on(options, monkeypatch, capsys):
    def missing() -> Subject:
        raise ModuleNotFoundError("No module named 'transformers'")

    never = Case("never", "", "digits", missing, {"gradient": ("",)})
    monkeypatch.setattr(program, "CASES", (never, CASE))
    assert options("--quick") == 1
    assert list(json.loads(options.out.read_text())["cases"]) == ["tiny"]
    told = "never cannot be made: ModuleNotFoundError: No module named 'transformers'"
    assert told in capsys.readouterr().out


def test_cases_that_are_no_more_are_forgotten(options, monkeypatch):
    Results({"gone": Found("then", {}, 1, 0)}, {"then": {}}).write(options.out)
    monkeypatch.setattr(program, "CASES", (CASE,))
    assert options("--quick") == 0
    assert list(json.loads(options.out.read_text())["cases"]) == ["tiny"]


def test_parts_names_and_globs_choose_cases():
    assert [case.name for case in program.chosen(["vgg16", "depth/*"])] == [
        "vgg16",
        *(case.name for case in CASES if case.part == "depth"),
    ]
    assert {case.part for case in program.chosen(["recurrent"])} == {"recurrent"}
    assert program.chosen([]) == list(CASES)


def test_a_case_that_does_not_exist_is_refused(options, capsys):
    with pytest.raises(SystemExit):
        options("--only", "vgg61")
    assert (
        "--only vgg61: there is no such case. Give one of the parts digits, pictures,"
        in capsys.readouterr().err
    )


def test_list_shows_parts_and_cases(options, capsys):
    assert options("--list") == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in PARTS)
    assert not options.out.exists()


def test_a_process_of_lxt_that_ends_is_told():
    lxt = LXT(Path(sys.executable), threads=1)
    subject = Subject(lambda x: x, torch.rand(1), 0, lambda y: y, patches=("no_model", "no.module"))
    with pytest.raises(RuntimeError, match="LXT's process has ended"):
        lxt.way(CASE, subject, "attnlrp")
    lxt.close()
    with pytest.raises(RuntimeError, match="LXT has no patches for two layers"):
        lxt.way(CASE, tiny(), "attnlrp")
