"""Tests of what older versions of other libraries cannot do yet.

relprop runs with the versions of `constraints-floors.txt`. Some tests there need more than relprop does: they
are about operations that torch lacks, or fail in the library by itself. They are skipped before the version
that they need, and run with every later one.
"""

from dataclasses import dataclass
from importlib import metadata

from packaging.version import Version


@dataclass(frozen=True)
class Lack:
    """What a library cannot do before a version.

    Attributes:
        library: its name as a package.
        before: the first version that can.
        reason: what it is.
        tests: how the names of the tests begin that need it.
    """

    library: str
    before: str
    reason: str
    tests: tuple[str, ...]

    @property
    def applies(self) -> bool:
        """Whether the version that is installed is an older one."""
        return Version(metadata.version(self.library)) < Version(self.before)

    @property
    def told(self) -> str:
        """The reason for skipping a test."""
        return f"{self.library} before {self.before}: {self.reason}"


_SPELLED = "tests/calls/test_spellings.py::test_a_function_is_the_same_in_every_spelling"
_ALONE = "tests/calls/test_spellings.py::test_one_sample_is_explained_as_it_is_among_several"
_CALLED = "tests/calls/test_spellings.py::test_a_model_is_the_same_however_it_is_called"
_KERNELS = "tests/operations/test_operations.py::test_kernels_pass_relevance"
_LANGUAGE = "tests/operations/test_language_operations.py::"


def _families(name: str) -> tuple[str, ...]:
    """The tests of a family of transformers."""
    tests = (
        "test_the_family_can_show_mistakes",
        "test_everything_is_covered",
        "test_every_preset_explains_it_and_leaves_it_as_it_came",
        "test_it_does_not_matter_how_attention_and_experts_are_computed",
        "test_presets_do_not_influence_each_other",
    )
    return tuple(f"tests/zoo/test_transformer_families.py::{test}[{name}" for test in tests)


LACKS = (
    Lack(
        "torch",
        "2.9",
        "gives modes no control flow",
        (
            "tests/runs/test_without_plans.py::test_control_flow_that_is_an_operation",
            *(
                f"tests/calls/test_control_flow.py::{test}"
                for test in (
                    *(
                        f"test_it_is_what_its_functions_are[{n}"
                        for n in ("cond", "while_loop", "map", "scan")
                    ),
                    "test_a_choice_of_a_module_is_exported_and_explained",
                    "test_a_model_that_imports_the_compiler",
                    "test_the_model_runs_as_before_after_it_was_explained",
                )
            ),
        ),
    ),
    Lack(
        "torch",
        "2.13",
        "does not tell modes of `.data`, so that a model which reads it has no plan",
        ("tests/runs/test_planned.py::test_steps[of_its_data-",),
    ),
    Lack(
        "torch",
        "2.8",
        "torch.export loses the weights of a module that a function holds",
        tuple(
            f"{_CALLED}[{function}-{how}]"
            for function in ("batch norm 2d, alone", "where", "embedding", "product", "gru cell")
            for how in ("export", "decomposed")
        ),
    ),
    Lack(
        "torch",
        "2.10",
        "no torch.nn.functional.grouped_mm, nor its kernel for CPUs",
        (
            f"{_LANGUAGE}test_rows_of_each_group_are_as_by_its_own_layer",
            f"{_LANGUAGE}test_a_group_that_is_only_a_part_is_a_gap",
            f"{_LANGUAGE}test_experts_by_groups_are_as_one_by_one",
            f"{_KERNELS}[_grouped_mm-",
            "tests/operations/test_operations.py::test_every_entry_of_the_table_has_a_case",
        ),
    ),
    Lack(
        "torch",
        "2.10",
        "no fused RMS norm, or one with other arguments",
        (
            f"{_SPELLED}[rms norm-fused]",
            f"{_ALONE}[rms norm-fused]",
            f"{_KERNELS}[_fused_rms_norm-",
        ),
    ),
    Lack(
        "torch",
        "2.10",
        "fewer operations are called core",
        ("tests/operations/test_core_aten.py::test_every_core_operation_is_exactly_one_of_three",),
    ),
    Lack(
        "torch",
        "2.13",
        "its list of functions is another one",
        ("tests/operations/test_every_function.py::",),
    ),
    Lack(
        "torch",
        "2.10",
        "its own gradient of torch.fft.irfft over an inner dimension fails",
        (
            "tests/operations/test_complex_numbers.py::test_complex_weights_are_a_gap_with_a_remedy",
            "tests/operations/test_complex_numbers.py::test_accepted_complex_weights_are_the_plain_gradient",
        ),
    ),
    Lack(
        "torch",
        "2.11",
        "transformers asks where a tensor lies before it multiplies by groups, which relprop refuses",
        _families("mixtral-sdpa-grouped_mm"),
    ),
    Lack(
        "torch",
        "2.13",
        "no derivatives of torch.narrow_copy and torch.aminmax",
        (
            f"{_SPELLED}[index-narrow_copy]",
            f"{_ALONE}[index-narrow_copy]",
            f"{_KERNELS}[narrow_copy-",
            f"{_KERNELS}[aminmax-",
        ),
    ),
    Lack(
        "torch",
        "2.11",
        "flex attention has a gradient on the CPU",
        ("tests/operations/test_flex_attention.py::test_on_the_cpu_there_is_a_remedy",),
    ),
    Lack(
        "torch",
        "2.13",
        "its types are not those that the package is checked against",
        ("tests/package/test_types.py::test_a_typed_program_is_right_and_mistakes_are_found[mypy]",),
    ),
    Lack(
        "torch",
        "2.13",
        "functionalize hides which part of a GRU is its bias: its share has another name in the ledger",
        (f"{_CALLED}[gru-functionalize]",),
    ),
    Lack(
        "transformers",
        "5.23",
        "its layers add to the cache again where they are recomputed",
        ("tests/bench/test_measuring.py::test_checkpoints_change_no_gradient_and_leave_nothing_behind",),
    ),
    Lack(
        "transformers",
        "5.23",
        "random models have other weights, and the page shows numbers of one",
        ("tests/docs/test_documentation.py::test_the_code_of_every_page_runs[docs/figures.md]",),
    ),
    Lack(
        "transformers",
        "5.15",
        "T5 computes attention in one way",
        _families("t5-sdpa"),
    ),
    Lack(
        "pillow",
        "13",
        "uncompressed TIFF files in YCbCr cannot be read",
        (
            "tests/view/test_digit.py::test_however_it_is_stored_the_same_digit_is_read[ycc.tiff]",
            "tests/view/test_digit.py::test_however_it_is_stored_the_network_sees_the_same_digit[ycc.tiff]",
        ),
    ),
)


def lack_of(test: str) -> Lack | None:
    """What the libraries that are installed lack for a test."""
    return next((lack for lack in _APPLYING if test.startswith(lack.tests)), None)


_APPLYING = tuple(lack for lack in LACKS if lack.applies)
