"""Planning tasks from the files and data sets of others, and from one's own.

The form is told from a row's fields, in any case: HotpotQA (question, answer, context of titled paragraphs, which
become the task's documents), TriviaQA ({"Data": [{Question, Answer: {Value, Aliases}}]}, and its rows on the Hub),
ReWOO's instruction data (instruction, input, output: a reference plan without an answer), GSM8K, MMLU, and plain rows
of question and answer, with a plan, aliases or a context where they have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from s3lora.errors import printable
from s3lora.evaluate.data.choice import EVERY_ROW, Fields, RowChoice, listed
from s3lora.evaluate.data.content import DataFileError
from s3lora.evaluate.data.delimited import DataRow
from s3lora.evaluate.data.hub import data_set_parts
from s3lora.evaluate.data.items import FieldError, checked_text, whole_text
from s3lora.evaluate.data.rows import DataSource, read_rows
from s3lora.evaluate.data.shapes import shape_of
from s3lora.evaluate.planning.documents import Document, read_documents
from s3lora.evaluate.planning.tasks import SYSTEM_PROMPT, PlanningTask, TaskSet
from s3lora.wording import worded

#: Data sets by a short name; a part in colons is the configuration, then the split.
NAMES = {
    "hotpotqa": "hotpotqa/hotpot_qa:distractor:validation",
    "triviaqa": "mandarjoshi/trivia_qa:rc.nocontext:validation",
    "rewoo": "rewoo/planner_instruction_tuning_2k::train",
}

#: Bytes of a file; tasks of a set; characters of a text; right answers, paragraphs and characters of them in a task.
MAX_BYTES = 128 * 2**20
MAX_TASKS = 200_000
MAX_CHARACTERS = 20_000
MAX_ANSWERS = 1_000
MAX_PARAGRAPHS = 1_000
MAX_CONTEXT = 2**20
MAX_ID = 200
ID_FIELDS = ("_id", "id", "question_id", "questionid")


def read_tasks(source: str | Path, documents: str | Path | None = None, choice: RowChoice = EVERY_ROW) -> TaskSet:
    """Read a file, or a data set by its name: hotpotqa, triviaqa, rewoo, or `owner/name:configuration:split`.

    Parameters:
        source: CSV, TSV, JSON, JSON lines or parquet, each also in gzip.
        documents: a folder of .txt or .md files which Lookup searches for tasks without a context of their own.
        choice: which rows are meant, and which column holds the question.

    Raises an S3LoRAError that names the file and the line where something is absent, too large or malformed.
    """
    given = NAMES.get(str(source).lower(), str(source))
    parts = data_set_parts(given, Path(given))
    if parts and parts[2] is None:
        # These data sets are large: load one split, not all of them.
        given = f"{parts[0]}:{parts[1] or ''}:train"
    rows = read_rows(DataSource(given, choice, None, MAX_BYTES))
    shared = () if documents is None else read_documents(documents)
    tasks = tuple(_tasks(rows, choice, rows.where))
    return TaskSet(rows.name, tasks, shared, notes=tuple(f"{rows.name}: {note}" for note in rows.notes))


def _tasks(rows: Iterable[DataRow], choice: RowChoice, where: object) -> Iterator[PlanningTask]:
    n = 0
    for n, (line, row) in enumerate(rows, 1):
        if n > MAX_TASKS:
            raise DataFileError(
                f"holds more than {MAX_TASKS:,} tasks", file=where, fix=worded("cut it, or choose: {where}")
            )
        if not isinstance(row, Mapping):
            raise DataFileError(f"{line} is no object", file=where, fix="give one with a question and an answer")
        try:
            yield _task({**row, "question": row[choice.prompt_field]} if choice.prompt_field else row)
        except FieldError as error:
            raise DataFileError(f"{line} has {error}", file=where, fix=error.fix) from None
    if not n:
        raise DataFileError("holds no tasks", file=where)


def _task(fields: Fields) -> PlanningTask:
    if "question" not in fields and {"instruction", "output"} <= fields.keys():
        system, question = fields["instruction"], fields.get("input")
        return PlanningTask(
            _text("input", question), _text("output", fields["output"]), system=_text("instruction", system)
        )
    if "question" not in fields:
        raise FieldError(
            f"no question; its columns are {listed(fields)}",
            worded("name the one with the question by {prompt_field_is}NAME, or give question and answer"),
        )
    question = _text("question", fields["question"])
    shape = shape_of(fields)
    answers = _answers(fields)
    plan = _text("plan", fields["plan"]) if fields.get("plan") else ""
    if not answers and not plan:
        raise FieldError("neither an answer nor a plan", "use a split whose answers are published")
    found = (str(fields[name]) for name in ID_FIELDS if fields.get(name) is not None)
    return PlanningTask(
        question if shape.ask is None else _text("question", shape.ask(fields, question)),
        plan,
        tuple(answers),
        documents=_context(fields.get("context")),
        system=_text("system prompt", fields["system"]) if fields.get("system") else SYSTEM_PROMPT,
        id=printable(next(found, ""), MAX_ID),
    )


def _answers(fields: Mapping[str, Any]) -> list[str]:
    """Return the right answers, the one that is shown first; TriviaQA repeats it among the aliases."""
    shape = shape_of(fields)
    published = shape.answers(fields) if shape.answers and {"question", "answer"} <= {*shape.columns} else None
    given = list(published.references) if published else fields.get("answer", fields.get("answers"))
    aliases = fields.get("aliases")
    if isinstance(fields.get("answer"), Mapping):
        given = fields["answer"]
        inner = {str(key).lower(): value for key, value in given.items()}
        given, aliases = inner.get("value"), inner.get("aliases")
    found = [*(given if isinstance(given, list) else [given]), *(aliases if isinstance(aliases, list) else [aliases])]
    found = [str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item for item in found]
    found = [item for item in found if item not in (None, "")]
    if len(found) > MAX_ANSWERS:
        raise FieldError(f"more than {MAX_ANSWERS:,} answers")
    return list(dict.fromkeys(_text("answer", item) for item in found))


def _context(context: Any) -> tuple[Document, ...]:
    """Return the documents of a task: HotpotQA's [[title, sentences], …], the same in columns, texts, or one text."""
    if context in (None, "", [], {}):
        return ()
    if isinstance(context, Mapping):
        titles, sentences = context.get("title"), context.get("sentences")
        if not isinstance(titles, list) or not isinstance(sentences, list) or len(titles) != len(sentences):
            raise FieldError("a context whose titles and sentences do not match")
        context = [[title, text] for title, text in zip(titles, sentences, strict=True)]
    paragraphs = context if isinstance(context, list) else [context]
    if len(paragraphs) > MAX_PARAGRAPHS:
        raise FieldError(f"more than {MAX_PARAGRAPHS:,} paragraphs")
    documents = tuple(_paragraph(n, paragraph) for n, paragraph in enumerate(paragraphs, 1))
    if sum(len(document.text) for document in documents) > MAX_CONTEXT:
        raise FieldError(f"a context of more than {MAX_CONTEXT:,} characters")
    return documents


def _paragraph(n: int, paragraph: Any) -> Document:
    title: Any = f"Paragraph {n}"
    if isinstance(paragraph, list) and len(paragraph) == 2:
        title, paragraph = paragraph
    if isinstance(paragraph, list) and all(isinstance(sentence, str) for sentence in paragraph):
        # HotpotQA's sentences begin with the space that parts them.
        paragraph = " ".join(sentence.strip() for sentence in paragraph)
    if not isinstance(title, str) or not isinstance(paragraph, str):
        raise FieldError("a context that is no text", "give [[title, [sentence, …]], …] or texts")
    return Document(printable(title, MAX_ID), whole_text("context", paragraph, MAX_CONTEXT))


def _text(name: str, value: object) -> str:
    return checked_text(name, value, MAX_CHARACTERS)
