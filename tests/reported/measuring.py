"""Measuring and training: rows whose checks are tests of this repository."""

from __future__ import annotations

from .common import Case, suite

CASES: dict[str, Case] = {
    "R3": suite(
        "backends/test_odd_servers.py::test_a_template_with_a_map_does_not_map_again",
        "backends/test_odd_servers.py::test_a_map_that_cannot_be_switched_off_is_one_line",
    ),
    "R4": suite("evaluation/test_metrics.py::test_an_id_is_data_and_no_sample_number"),
    "R5": suite("scorers/test_scorers.py::test_a_think_tag_is_scored_once"),
    "R6": suite("backends/test_sampling.py::test_every_sample_is_another_text_whatever_the_batch_is"),
    "R7": suite("test_completeness.py::test_edited_data_is_refused_and_the_rows_are_named"),
    "R9": suite("evaluation/test_cut_off.py"),
    "R14": suite("training/test_trainer.py::test_what_is_trained_is_kept_in_float32"),
    "R15": suite(
        "backends/test_sampling.py::test_what_comes_from_the_journal_has_no_time",
        "evaluation/test_metrics.py::test_the_first_window_warms_up_and_is_not_timed",
    ),
    "R19": suite("report/test_report.py::test_no_install_line_that_nobody_can_run"),
}
