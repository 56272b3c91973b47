"""Planning tasks from the files and data sets of others, and from one's own.

The form is told from a row's fields, in any case: HotpotQA (question, answer, context of titled paragraphs, which
become the task's documents), TriviaQA ({"Data": [{Question, Answer: {Value, Aliases}}]}, and its rows on the Hub),
ReWOO's instruction data (instruction, input, output: a reference plan without an answer), and plain rows of question
and answer, with a plan, aliases or a context where they have one. Files are JSON or JSON lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from s3lora.errors import S3LoRAError, printable
from s3lora.evaluate.planning.documents import Document, read_documents
from s3lora.evaluate.planning.tasks import SYSTEM_PROMPT, PlanningTask, TaskSet
from s3lora.evaluate.prompts import read_text
from s3lora.evaluate.rows import DataRow, FieldError, data_set_parts, data_set_rows, json_rows, numbered

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


class TaskFileError(S3LoRAError):
    """A file or data set that cannot be read as planning tasks."""


def read_tasks(source: str | Path, documents: str | Path | None = None) -> TaskSet:
    """Read a file, or a data set by its name: hotpotqa, triviaqa, rewoo, or `owner/name:configuration:split`.

    `documents` is a folder of .txt or .md files which Lookup searches for tasks without a context of their own. Raises
    an S3LoRAError that names the file and the line where something is absent, too large or malformed.
    """
    name = NAMES.get(str(source).lower(), str(source))
    path = Path(source)
    parts = data_set_parts(name, path)
    if parts:
        owner, configuration, split = parts
        rows, where = data_set_rows(owner, configuration, split or "train", TaskFileError, ()), name
    else:
        rows, where, name = _rows(read_text(path, MAX_BYTES), path), str(path), path.name
    shared = () if documents is None else read_documents(documents)
    return TaskSet(name, tuple(_tasks(rows, where)), shared)


def _tasks(rows: Iterable[DataRow], where: object) -> Iterator[PlanningTask]:
    n = 0
    for n, (line, row) in enumerate(rows, 1):
        if n > MAX_TASKS:
            raise TaskFileError(f"holds more than {MAX_TASKS:,} tasks", file=where, fix="cut it")
        if not isinstance(row, Mapping):
            raise TaskFileError(f"{line} is no object", file=where, fix="give one with a question and an answer")
        try:
            yield _task({str(key).strip().lower(): value for key, value in row.items()})
        except FieldError as error:
            raise TaskFileError(f"{line} has {error}", file=where, fix=error.fix) from None
    if not n:
        raise TaskFileError("holds no tasks", file=where)


def _task(fields: Mapping[str, Any]) -> PlanningTask:
    if "question" not in fields and {"instruction", "output"} <= fields.keys():
        system, question = fields["instruction"], fields.get("input")
        return PlanningTask(
            _text("input", question), _text("output", fields["output"]), system=_text("instruction", system)
        )
    if "question" not in fields:
        raise FieldError("no question", "name the fields question and answer, or instruction, input and output")
    answers = _answers(fields)
    plan = _text("plan", fields["plan"]) if fields.get("plan") else ""
    if not answers and not plan:
        raise FieldError("neither an answer nor a plan", "use a split whose answers are published")
    found = (str(fields[name]) for name in ("_id", "id", "question_id", "questionid") if fields.get(name) is not None)
    return PlanningTask(
        _text("question", fields["question"]),
        plan,
        tuple(answers),
        documents=_context(fields.get("context")),
        system=_text("system prompt", fields["system"]) if fields.get("system") else SYSTEM_PROMPT,
        id=printable(next(found, ""), MAX_ID),
    )


def _answers(fields: Mapping[str, Any]) -> list[str]:
    """Return the right answers, the one that is shown first; TriviaQA repeats it among the aliases."""
    given = fields.get("answer", fields.get("answers"))
    aliases = fields.get("aliases")
    if isinstance(given, Mapping):
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
    return Document(printable(title, MAX_ID), _whole("context", paragraph, MAX_CONTEXT))


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        article = "an" if name[0] in "aeio" else "a"
        raise FieldError(f"{article} {name} that is no text")
    return _whole(name, value.strip(), MAX_CHARACTERS)


def _whole(name: str, text: str, most: int) -> str:
    if len(text) > most:
        raise FieldError(f"more than {most:,} characters of {name}")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise FieldError(f"half of a character (a lone surrogate) in its {name}")
    return text


def _rows(text: str, where: object) -> Iterator[DataRow]:
    """Yield the rows of a JSON list, of TriviaQA's {"Data": […]}, of one object, or of JSON lines."""

    def unpack(document: Any) -> Iterator[DataRow]:
        if isinstance(document, dict):
            inner = next((value for key, value in document.items() if key.lower() == "data"), None)
            document = inner if isinstance(inner, list) else [document]
        if not isinstance(document, list):
            raise TaskFileError("is JSON of no form that holds tasks", file=where, fix="give a list of objects")
        return numbered(document)

    return json_rows(text, where, TaskFileError, unpack)
