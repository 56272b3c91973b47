"""Who may attack s3lora with what, what holds, and the tests that show it: the rows of a table in docs/security.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """One row: `means` is what the attacker gives, `example` what it does, `holds` what comes of it.

    `tests` are files of `tests/`, or tests in them. What no test shows does not stand here.
    """

    means: str
    example: str
    holds: str
    tests: tuple[str, ...]


ATTACKS = (
    Attack(
        "a safetensors file",
        "a header that lies about lengths, offsets, types or shapes; a name twice; damaged bytes",
        "It is refused in one sentence, or read with the same tensors as the package safetensors reads.",
        (
            "fuzz/test_safetensors_differential.py",
            "hostile/test_fuzz.py::test_mutated_files_are_scanned_or_refused",
            "hostile/test_bad_adapters.py::test_a_bad_adapter_is_refused_in_one_sentence",
        ),
    ),
    Attack(
        "a torch file",
        "a pickle that calls a shell; a member marked as a folder; sizes, versions and arguments that are wrong",
        "No pickle is run. What is read, `torch.load(weights_only=True)` reads too, with the same tensors.",
        (
            "fuzz/test_torch_differential.py",
            "adapter/test_torch_archive.py",
            "adapter/test_torch_zip.py",
            "hostile/test_bad_adapters.py::test_the_marker_test_would_notice",
        ),
    ),
    Attack(
        "an NPZ archive, a GGUF file",
        "arrays of objects; what unpacks to gigabytes; a header that claims 2⁶² items in a kilobyte; damaged bytes",
        "No pickle is run. Counts and lengths are held against the file before they are believed; lies are refused.",
        (
            "adapter/test_npz.py::test_lies_are_refused",
            "adapter/test_npz.py::test_damage_within_what_is_compressed",
            "adapter/test_gguf.py::test_lies_are_refused",
            "adapter/test_gguf.py::test_an_array_of_2_62_elements",
            "adapter/test_names_of_tools.py::test_an_impossible_number_of_experts",
        ),
    ),
    Attack(
        "small matrices of a huge update",
        "a LoHa or LoKr whose layer has as many rows and columns as would fill any memory; parts that do not fit",
        "What would be too large is refused before any number is read, the rest is measured from the small matrices.",
        ("adapter/test_forms.py",),
    ),
    Attack(
        "numbers",
        "NaN, infinity, signalling NaN, finite factors whose product overflows",
        "They are named and never ranked. The rule `nonfinite` makes them a finding, in whatever tensor they are.",
        (
            "hostile/test_bad_adapters.py::test_numbers_that_are_not_finite_are_named",
            "gate/test_findings.py::test_nonfinite_modules_are_kept_where_that_is_asked_for",
            "gate/test_findings.py::test_no_ranking_takes_a_nonfinite_module",
            "gate/test_findings.py::test_a_nonfinite_module_is_a_finding",
            "gate/test_conditions.py::test_nan_in_what_is_no_module",
            "gate/test_conditions.py::test_finite_factors_whose_product_is_not",
            "rewrite/test_prune.py::test_a_signalling_nan_in_a_bias_is_an_error_and_no_warning",
        ),
    ),
    Attack(
        "tensors beside the modules",
        "a weight that takes the place of one of the base model, a head, a bias, trained tokens",
        "Each is listed with name, shape and size. With any rule the adapter fails, unless they are allowed by name.",
        ("gate/test_conditions.py", "inventory/test_tensors.py", "inventory/test_values.py"),
    ),
    Attack(
        "modules that no loader applies",
        "prefixes of wrappers, modules that the configuration does not target, empty tensors, a slice of one rank",
        "They are named with the cause. With any rule the adapter fails, unless they are allowed by name.",
        (
            "inventory/test_applied.py",
            "gate/test_conditions.py::test_every_kind_fails_and_is_allowed_by_its_name",
        ),
    ),
    Attack(
        "several weights in one folder",
        "a harmless file that s3lora measures beside one that the loader takes",
        "What each loader takes is listed. What cannot be decided is refused, and other weights are a finding.",
        ("inventory/test_resolution.py", "inventory/test_loaders.py"),
    ),
    Attack(
        "companions",
        "code, pickles in files and archives, `auto_map`, a chat template that leaves its sandbox",
        "Each is listed with what it would run, and the rule `strict` fails. Nothing is run, imported or rendered.",
        (
            "hostile/test_beside.py",
            "inventory/test_pickles.py",
            "inventory/test_templates.py",
            "inventory/test_files.py",
        ),
    ),
    Attack(
        "the folder",
        "named pipes, sockets, devices, links out of it, folders without end",
        "Only regular files are opened, no link out of the folder is followed, and what is listed is bounded.",
        (
            "inventory/test_files.py::test_links_pipes_and_sockets",
            "inventory/test_files.py::test_bounds_of_a_folder",
            "inventory/test_files.py::test_depth_and_names",
            "cli/test_special_files.py",
        ),
    ),
    Attack(
        "the configuration",
        "fields of any type, patterns that take a regular expression for ever, deep nesting",
        "It is refused in one sentence or read. Expressions are matched in bounded time.",
        (
            "hostile/test_fuzz.py::test_any_configuration_is_scanned_or_refused",
            "hostile/test_fuzz.py::test_any_configuration_is_pruned_or_refused",
            "hostile/test_limits.py::test_exploding_patterns_are_answered",
            "adapter/test_expressions.py",
            "adapter/test_patterns.py",
            "adapter/test_killed.py::test_a_configuration_nested_deep_is_one_sentence",
        ),
    ),
    Attack(
        "names",
        "escape sequences, commands to a CI, formulas, markup, text that is no UTF-8",
        "No line of output begins with a command, no cell with a formula, and no name becomes markup or a path.",
        (
            "hostile/test_names_in_logs.py",
            "hostile/test_limits.py::test_names_that_are_no_text",
            "test_outside.py::test_no_line_is_a_command",
            "report/test_documents.py::test_csv_cells_are_no_formulas",
            "report/test_documents.py::test_measured_cells_are_no_formulas",
            "gate/test_conditions.py::test_names_of_tensors_are_no_formulas",
            "report/test_glance.py::test_hostile_names_are_shown_harmlessly",
            "report/test_text.py::test_hostile_names_are_printed_harmlessly",
            "report/test_page.py::test_hostile_names_are_shown_as_they_are",
            "report/test_page.py::test_no_name_changes_what_a_page_is_made_of",
            "report/test_sarif.py::test_hostile_names",
            "report/test_junit.py::test_hostile_names",
            "report/test_bom.py::test_hostile_names_make_a_valid_bill",
            "report/test_card.py::test_hostile_names_are_text",
            "cli/test_fleet_report.py::test_names_of_pages_hold_nothing_foreign",
        ),
    ),
    Attack(
        "size",
        "headers and tensors of gigabytes, a hundred thousand tensors, shapes that take hours to compute",
        "Memory is bounded. Work is estimated from the shapes, and what costs too much ends with status 2 before it "
        "is begun.",
        (
            "hostile/test_limits.py::test_a_gigabyte_of_header_is_not_read",
            "hostile/test_limits.py::test_a_header_at_the_limit_is_read_within_bounds",
            "hostile/test_limits.py::test_a_gigabyte_of_tensors_is_scanned_in_little_memory",
            "hostile/test_limits.py::test_factors_of_a_gigabyte_are_scanned_in_bounded_memory",
            "hostile/test_limits.py::test_a_hundred_thousand_tensors_that_are_no_factors",
            "inventory/test_files.py::test_huge_files_cost_nothing",
            "measure/test_cost.py",
            "cli/test_cost.py",
        ),
    ),
    Attack(
        "a model card",
        "broken or repeated markers, links, what is no text",
        "The card is left as it is, or one block of it is replaced whole.",
        (
            "cli/test_card.py::test_a_card_keeps_what_it_says",
            "cli/test_card.py::test_broken_markers_change_nothing",
            "cli/test_card.py::test_links",
            "cli/test_card.py::test_cards_that_cannot_be",
        ),
    ),
    Attack(
        "a reference or a baseline",
        "a file of another kind, of another version, with other methods, or with hostile names",
        "It is refused in one sentence. Names in it stay text.",
        (
            "fleet/populations/test_reference.py::test_what_is_no_reference",
            "fleet/populations/test_reference.py::test_other_methods_are_refused",
            "report/test_against.py::test_hostile_reference_names_stay_text",
            "gate/test_baseline.py::test_files_that_are_no_baseline",
            "gate/test_baseline.py::test_files_that_cannot_be_read",
        ),
    ),
    Attack(
        "a policy",
        "unknown keys, values of a wrong kind, what cannot be allowed, a file that waits",
        "It is refused in one sentence, with the number of the line where there is one.",
        (
            "gate/test_policy.py::test_the_line_of_what_is_wrong",
            "gate/test_policy.py::test_files_that_are_no_policy",
            "gate/test_conditions.py::test_what_a_policy_cannot_allow",
            "gate/test_policy.py::test_two_policies_are_one_too_many",
            "cli/test_special_files.py::test_a_policy_that_waits_is_an_error",
        ),
    ),
    Attack(
        "the working directory",
        "modules called as those that s3lora imports",
        "`python -m s3lora` and its own workers import nothing from there, but for [what is left](#what-is-left).",
        ("cli/test_working_directory.py",),
    ),
    Attack(
        "a model server",
        "redirects, answers without end, drips, nonsense, an address that catches the key",
        "Redirects are not followed, size and time are bounded, and the key goes to no other machine in the clear.",
        ("evaluate/test_endpoint.py", "evaluate/test_address.py"),
    ),
    Attack(
        "a file server or a hub",
        "redirects to other hosts, bodies without end, files that change while they are read",
        "Only named hosts are asked, and no more is read than the header claims.",
        (
            "fleet/sources/test_redirects.py",
            "fleet/sources/test_remote.py",
            "fleet/sources/test_remote_memory.py",
        ),
    ),
    Attack(
        "a dataset of `fleet scan`",
        "damaged parts, pipes in the place of parts, another version, a folder of something else",
        "It is refused with what to do, and a foreign folder is left alone.",
        (
            "cli/test_special_files.py::test_what_lies_in_a_dataset",
            "fleet/test_run.py::test_a_damaged_part_is_named_with_what_to_do",
            "fleet/test_run.py::test_a_dataset_of_a_newer_version_is_refused",
            "fleet/test_run.py::test_a_folder_of_something_else_is_left_alone",
        ),
    ),
    Attack(
        "a look at the output",
        "user names, passwords and tokens in addresses",
        "They are struck out of datasets, logs and the terminal.",
        ("fleet/sources/test_secrets.py", "test_outside.py"),
    ),
    Attack(
        "the place of the output",
        "links, devices, folders that hold the input, two runs at once",
        "The input is never written to, no link is followed, and of two runs one succeeds.",
        ("cli/test_output_paths.py", "adapter/test_killed.py"),
    ),
    Attack(
        "the moment",
        "a kill, a full disk, an error or a disk that becomes read-only, at any call that writes",
        "The target is old or new, and whole; the next run removes what was left.",
        (
            "faults/test_faults.py",
            "cli/test_signals.py",
            "hostile/test_limits.py::test_a_full_disk_leaves_no_output",
            "hostile/test_limits.py::test_a_full_disk_keeps_what_was_there",
        ),
    ),
    Attack(
        "the network",
        "a listener that waits for what a command tells",
        "A command that is not about the network opens no socket.",
        ("test_sockets.py",),
    ),
)
