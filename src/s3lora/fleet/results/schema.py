"""The tables of a fleet's dataset: every column, its type and its meaning, in one place.

A dataset is a folder of parts. `DIR/parts/NNNNNN/` holds `adapters.parquet`, `modules.parquet` and `errors.parquet`
of one batch, and takes its place by one rename, so that a reader sees the three tables of a batch or none of them.
Every input is one row of `adapters` or one row of `errors`; `uri` joins the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from s3lora.fleet.signature import SIGNATURE
from s3lora.gate.counting import KINDS, TOLD
from s3lora.needs import need
from s3lora.spectrum.indices import INDICES

#: Grows when a column changes its meaning or leaves; a new column does not count.
SCHEMA_VERSION = 1
#: Key of the version in the metadata of every file.
VERSION_KEY = b"s3lora_fleet_schema"

Table = Literal["adapters", "modules", "errors"]
TABLES: tuple[Table, ...] = ("adapters", "modules", "errors")


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `type` is Arrow's name of it, and every column but those that say so may be null."""

    name: str
    type: Literal["string", "int32", "int64", "double", "bool", "list<string>"]
    meaning: str
    required: bool = False


def _column(name: str, type: Any, meaning: str) -> Column:
    return Column(name.removesuffix("!"), type, meaning, required=name.endswith("!"))


#: What is in an adapter besides its modules; null where it could not be seen, and in datasets of older versions.
INSIDE = (
    *(
        column
        for name, what in ((kind.replace("-", "_"), TOLD[kind]) for kind in KINDS)
        for column in (
            _column(name, "int32", f"{what}: tensors that no index has seen"),
            _column(f"{name}_parameters", "int64", "numbers in them"),
        )
    ),
    _column("unmeasured", "int32", "tensors that a loader applies and no index has seen, of all these kinds"),
    _column("unmeasured_bytes", "int64", "their size in the file"),
    _column("unmeasured_largest", "double", "the largest finite magnitude in them"),
    _column("nonfinite_tensors", "int32", "tensors outside the modules that hold NaN or infinity"),
    _column("dead_modules", "int32", "modules and tensors that stand in the file and that PEFT does not apply"),
    _column("ambiguous", "int32", "what leaves it open what a loader takes: too many files, a configuration not read"),
    _column("beside", "string", "what is known of other files in the folder: `read`, or only their `names`"),
    _column(
        "other_weights",
        "int32",
        "weights of other content beside, and what a loader takes instead; by `names`, all weights beside",
    ),
    _column("code", "int32", "files that are code, or make a program run some"),
    _column("pickles", "int32", "pickles that are no weights that were measured"),
)

#: How updates are stored; null in datasets of older versions, which had LoRA alone.
FORMS = _column("form", "string", "how the updates are stored: LoRA, LoHa, …, joined by + where there are several")
FORM = _column("form", "string", "how the update is stored: LoRA, LoHa, LoKr, AdaLoRA, VeRA or QALoRA")

ADAPTERS = (
    _column("uri!", "string", "the input, as it was given or found"),
    _column("name!", "string", "name of the adapter's folder or file"),
    _column("format!", "string", "which format it is of: peft, mlx, …"),
    _column(
        "content!",
        "string",
        "SHA-256 of what was measured: paths, shapes, scaling and values of all modules, and warnings of the "
        "configuration",
    ),
    _column("tensors!", "string", "SHA-256 of the factors alone, under whatever names: the same in duplicates"),
    _column("fingerprint!", "string", "what the files looked like from outside: names, sizes, times or entity tags"),
    _column("base_model", "string", "`base_model_name_or_path` of the configuration"),
    _column("base_family!", "string", "family of that name, without size and variant, or `unknown`"),
    _column("rank_min!", "int32", "smallest rank of a module"),
    _column("rank_max!", "int32", "largest rank of a module"),
    _column("modules!", "int32", "number of modules"),
    _column("zero_modules!", "int32", "modules with a zero update"),
    _column("nonfinite_modules!", "int32", "modules that hold NaN or infinity, which have no index"),
    _column("overflow_modules", "int32", "modules whose product goes beyond the range of float16 or float32"),
    _column("parameters!", "int64", "LoRA parameters"),
    _column("bytes!", "int64", "size of the weights files"),
    _column("dtype!", "string", "dtypes of the modules, joined by + where there are several"),
    _column("projections!", "string", "projections of the modules, in order of name, joined by +"),
    FORMS,
    _column("lora_alpha", "double", "of the configuration"),
    _column("lora_dropout", "double", "of the configuration"),
    _column("use_rslora", "bool", "of the configuration"),
    _column("use_dora", "bool", "of the configuration"),
    _column("init", "string", "`init_lora_weights` of the configuration"),
    _column("task_type", "string", "of the configuration"),
    _column("peft_version", "string", "of the configuration"),
    _column("warnings!", "list<string>", "what the scan warned of"),
    *INSIDE,
    *(Column(f"signature_{name}", "double", f"weight-space signature: {name}") for name in SIGNATURE),
)

MODULES = (
    _column("uri!", "string", "the adapter"),
    _column("path!", "string", "full path of the module in the base model"),
    _column("layer", "int32", "number of its layer"),
    _column("layer_third", "int32", "0, 1 or 2: early, middle or late among the layers of this adapter"),
    _column("projection!", "string", "last part of its path"),
    _column("expert", "int32", "number of its expert"),
    _column("kind!", "string", "linear, conv or embedding"),
    _column("m!", "int64", "rows of ΔW, output features"),
    _column("n!", "int64", "columns of ΔW, input features"),
    _column("rank!", "int32", "rank of the factors, or of the update that other forms than LoRA store"),
    FORM,
    _column("dtype!", "string", "dtype of lora_B, or of both factors where they differ"),
    _column("scaling!", "double", "s in ΔW = s·B·A"),
    _column("scaling_origin!", "string", "how the scaling is known"),
    _column("dora!", "bool", "whether it is a DoRA module"),
    _column("parameters!", "int64", "numbers that were trained for it: r·(m + n) for LoRA"),
    _column("zero!", "bool", "whether it is a zero update, which has no index"),
    *(Column(name, "double", index.described) for name, index in INDICES.items()),
)

ERRORS = (
    _column("uri!", "string", "the input, as it was given or found"),
    _column("kind!", "string", "what sort of error: the name of its class, without `Error`"),
    _column("reason!", "string", "one sentence: file, module, shape, reason, what to do"),
    _column("transient!", "bool", "whether another try may go better; `--resume` tries these again"),
    _column("fingerprint", "string", "as in `adapters`, where the files were seen"),
)

COLUMNS: dict[Table, tuple[Column, ...]] = {"adapters": ADAPTERS, "modules": MODULES, "errors": ERRORS}


def arrow_schema(table: Table) -> Any:
    """Return the `pyarrow.Schema` of a table, with the version in its metadata."""
    pa = need("pyarrow", "fleet")
    types = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "list<string>": pa.list_(pa.string()),
    }
    fields = [pa.field(column.name, types[column.type], nullable=not column.required) for column in COLUMNS[table]]
    return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})
