"""The list of checks of each kind of plugin, in the order in which an author would mend them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmtool.api import Encoder, Fusion, Task
from mmtool.testing import statement
from mmtool.testing.checks import Check, Contract, Outcome
from mmtool.testing.encoders import batches, cells, pooling
from mmtool.testing.encoders import state as encoder_state
from mmtool.testing.encoders import statement as encoder_statement
from mmtool.testing.encoders.subject import EncoderSubject
from mmtool.testing.fusions import fitting, forward, gradients, missing, towers
from mmtool.testing.fusions import state as fusion_state
from mmtool.testing.fusions import statement as fusion_statement
from mmtool.testing.fusions.subject import FusionSubject
from mmtool.testing.subject import Subject
from mmtool.testing.tasks import heads, metrics, predictions, regions, targets
from mmtool.testing.tasks import statement as task_statement
from mmtool.testing.tasks.subject import TaskSubject

__all__ = ["ENCODER_CHECKS", "FUSION_CHECKS", "TASK_CHECKS", "Check", "Outcome", "encoder_checks", "fusion_checks",
           "task_checks"]

ENCODER_CHECKS: Contract = {
    encoder_statement.states_what_it_is: None,
    statement.options_are_explicit: encoder_statement.states_what_it_is,
    statement.builds_without_files: statement.options_are_explicit,
    encoder_statement.fits_the_same_twice: statement.options_are_explicit,
    encoder_statement.loads: encoder_statement.fits_the_same_twice,
    cells.prepares_cells: encoder_statement.fits_the_same_twice,
    cells.prepares_the_same_twice: cells.prepares_cells,
    cells.prepares_in_another_process: cells.prepares_the_same_twice,
    statement.can_be_pickled: cells.prepares_cells,
    batches.gives_tokens: cells.prepares_the_same_twice,
    batches.repeats_its_bits: batches.gives_tokens,
    batches.batching_changes_nothing: batches.repeats_its_bits,
    batches.batching_changes_nothing_in_bfloat16: batches.batching_changes_nothing,
    batches.bears_a_row_of_zeros: batches.batching_changes_nothing,
    batches.bears_two_threads: batches.repeats_its_bits,
    batches.ignores_padding: batches.batching_changes_nothing,
    pooling.pools_to_one_width: batches.gives_tokens,
    pooling.ignores_masked_values: pooling.pools_to_one_width,
    pooling.stays_finite_where_missing: pooling.pools_to_one_width,
    pooling.fills_its_space: batches.gives_tokens,
    encoder_state.survives_save_and_load: batches.repeats_its_bits,
    encoder_state.agrees_on_cuda: batches.repeats_its_bits,
    statement.prints_nothing: batches.gives_tokens,
}

FUSION_CHECKS: Contract = {
    fusion_statement.states_what_it_is: None,
    statement.options_are_explicit: fusion_statement.states_what_it_is,
    fusion_statement.builds_for_any_inputs: statement.options_are_explicit,
    statement.builds_without_files: fusion_statement.builds_for_any_inputs,
    fusion_statement.same_seed_gives_same_weights: fusion_statement.builds_for_any_inputs,
    statement.can_be_pickled: fusion_statement.builds_for_any_inputs,
    fitting.fits_the_same_twice: fusion_statement.same_seed_gives_same_weights,
    fitting.fits_rows_in_any_order: fitting.fits_the_same_twice,
    fitting.fits_what_is_there: fitting.fits_the_same_twice,
    forward.gives_tokens: fitting.fits_the_same_twice,
    forward.repeats_its_bits: forward.gives_tokens,
    forward.order_changes_nothing: forward.repeats_its_bits,
    missing.stays_finite_where_missing: forward.repeats_its_bits,
    forward.batching_changes_nothing: missing.stays_finite_where_missing,
    missing.ignores_masked_values: forward.batching_changes_nothing,
    missing.ignores_more_padding: missing.ignores_masked_values,
    missing.ignores_what_a_missing_input_holds: missing.stays_finite_where_missing,
    forward.takes_what_it_states: missing.ignores_more_padding,
    towers.combines_scores: missing.ignores_what_a_missing_input_holds,
    gradients.gradients_reach_every_parameter: towers.combines_scores,
    gradients.gradients_stay_finite_where_missing: gradients.gradients_reach_every_parameter,
    fusion_state.stays_finite_in_bfloat16: missing.stays_finite_where_missing,
    fusion_state.survives_save_and_load: forward.repeats_its_bits,
    fusion_state.agrees_on_cuda: forward.batching_changes_nothing,
    statement.prints_nothing: forward.gives_tokens,
}

TASK_CHECKS: Contract = {
    task_statement.states_what_it_is: None,
    statement.options_are_explicit: task_statement.states_what_it_is,
    statement.builds_without_files: statement.options_are_explicit,
    targets.checks_targets_before_fit: statement.options_are_explicit,
    targets.fits_in_any_order: targets.checks_targets_before_fit,
    targets.encodes_targets: targets.fits_in_any_order,
    targets.refuses_with_cell_error: targets.encodes_targets,
    targets.keeps_what_it_learned: targets.encodes_targets,
    heads.builds_heads: targets.keeps_what_it_learned,
    heads.gives_a_loss_a_row: heads.builds_heads,
    heads.gradients_reach_every_head: heads.gives_a_loss_a_row,
    heads.is_linear_as_stated: heads.gives_a_loss_a_row,
    predictions.decodes_rows: heads.gives_a_loss_a_row,
    predictions.is_calibrated_as_stated: predictions.decodes_rows,
    predictions.scores_come_back: predictions.decodes_rows,
    predictions.has_a_baseline: predictions.decodes_rows,
    regions.regions_hold_what_fits: predictions.decodes_rows,
    metrics.measures: predictions.has_a_baseline,
    metrics.counts_are_repeated_rows: metrics.measures,
    metrics.measures_what_other_tools_predict: metrics.measures,
    metrics.measures_any_target: metrics.measures,
    metrics.less_loss_is_better: metrics.measures,
    heads.survives_save_and_load: predictions.decodes_rows,
    heads.agrees_on_cuda: predictions.decodes_rows,
    statement.prints_nothing: predictions.decodes_rows,
}


def encoder_checks(encoder: str | type[Encoder], *, load: bool = True,
                   cells: Sequence[Any] | None = None) -> list[Check]:
    """Every check of an encoder, given as `NAME:VARIANT,key=value` or as a class; nothing runs before one is called.

    Without options, those of the class's `example` are used. `load=False` keeps random weights; `cells` are decoded
    cells to try instead of the class's `sample_cells`, or of those that are made for its modality.
    """
    return _checks(EncoderSubject(encoder, load=load, cells=cells), ENCODER_CHECKS)


def fusion_checks(fusion: str | type[Fusion]) -> list[Check]:
    """Every check of a fusion, given as `NAME:VARIANT,key=value` or as a class, on made-up tokens of one and three inputs."""
    return _checks(FusionSubject(fusion), FUSION_CHECKS)


def task_checks(task: str | type[Task]) -> list[Check]:
    """Every check of a task, given as `NAME:VARIANT,key=value` or as a class, on the class's `sample_targets`."""
    return _checks(TaskSubject(task), TASK_CHECKS)


def checks(kind: str, plugin: str, *, load: bool = True) -> list[Check]:
    """The checks of a plugin whose kind is known by name only; `load` means something to encoders."""
    if kind == "encoder":
        return encoder_checks(plugin, load=load)
    return fusion_checks(plugin) if kind == "fusion" else task_checks(plugin)


def _checks(subject: Subject, contract: Contract) -> list[Check]:
    return [Check(subject, function, contract) for function in contract]
