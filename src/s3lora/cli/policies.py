"""What a policy means to a command: defaults for the options that are not written on its command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import click

from s3lora.choose.presets import PRESETS
from s3lora.choose.rules import RULES
from s3lora.choose.select import Filter
from s3lora.cli.command import Command
from s3lora.cli.options import APPLIED, OWNERS, all_options, layers_of
from s3lora.cli.output import complain
from s3lora.errors import UsageError, printable
from s3lora.gate.allow import allowances
from s3lora.gate.findings import gates_of
from s3lora.gate.policy import Policy, find_policy, read_policy
from s3lora.measure.cost import Estimate, afford
from s3lora.wording import for_command


def _allowed(text: str) -> None:
    """Raise UsageError unless the text names what can be allowed, and says why."""
    for name, reason in allowances([text]).items():
        if not reason:
            raise UsageError(f"{name} is allowed without a reason", fix=f'write "{name}: why you accept it"')


#: Key → what raises UsageError for a value that the option's type lets pass.
_CHECKS: dict[str, Callable[[Any], object]] = {
    "layers": lambda text: Filter(layers=layers_of(text)),
    "only": lambda pattern: Filter(pattern=pattern),
    "fail-on": lambda rule: gates_of([rule]),
    "allow": _allowed,
    "max-cost": lambda limit: afford(Estimate(0), limit, ""),
}

_ALLOWS = "s3lora.policy.allow"
#: Key → the rule whose setting it is.
_OF_RULE = {setting.name: kind for kind in RULES.values() for setting in kind.settings}

policy_options = all_options(
    click.option("--policy", metavar="FILE",
                 help="Rules and options of a file  [default: s3lora.toml or pyproject.toml, where there is one]."),
    click.option("--no-policy", is_flag=True, help="Read no policy."),
)  # fmt: skip


class PolicyCommand(Command):
    """A command whose options have the defaults that a policy gives them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the policy that applies, and then the command line, which goes before it."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        asked = self.get_help_option(ctx)
        if not (ctx.resilient_parsing or (asked is not None and asked.name in given)):
            policy = _policy(given.get("policy"), bool(given.get("no_policy")))
            if policy is not None:
                self._apply(ctx, policy, given.keys())
        return super().parse_args(ctx, args)

    def _apply(self, ctx: click.Context, policy: Policy, given: Collection[str]) -> None:
        options = {option.name or "": option for option in self.params if isinstance(option, click.Option)}
        for key, value in policy.values.items():
            _check(policy, key, value, options[_name(key)], ctx)
        _refuse_idle(policy, options)
        complain(f"policy: {policy.file}", 0)
        left = policy.beside({name.replace("_", "-") for name in given})
        ctx.default_map = {_name(key): _value(policy, key, value) for key, value in left.items()}
        ctx.meta[APPLIED] = frozenset(ctx.default_map)
        # What a team accepted in writing stays accepted beside what is allowed for once.
        ctx.meta[_ALLOWS] = tuple(policy.values.get("allow", ()))


def policy_allows(ctx: click.Context) -> tuple[str, ...]:
    """Return what the policy of a command allows, to which `--allow` adds."""
    allows: tuple[str, ...] = ctx.meta.get(_ALLOWS, ())
    return allows


def _policy(file: str | None, none: bool) -> Policy | None:
    if none and file is not None:
        raise UsageError("--policy and --no-policy exclude each other")
    if none:
        return None
    return find_policy(Path()) if file is None else read_policy(Path(file))


def _check(policy: Policy, key: str, value: Any, option: click.Option, ctx: click.Context) -> None:
    """Raise UsageError, with the line, if the value cannot be meant."""
    for item in value if isinstance(value, list) else (value,):
        try:
            option.type.convert(item, option, ctx)
            if key in _CHECKS:
                _CHECKS[key](item)
            if key in _OF_RULE:
                asked = {setting.name: setting.default for setting in _OF_RULE[key].settings}
                _OF_RULE[key].rule({"seed": 0, **asked, **policy.values})
        except click.BadParameter as error:
            raise policy.error(key, f"{key}: {printable(error.message)}") from None
        except UsageError as error:
            problem = for_command(error.problem).removeprefix("--")
            raise policy.error(
                key,
                problem if problem.startswith(key) else f"{key}: {problem}",
                item=item if isinstance(item, str) else None,
                fix=None if error.fix is None else for_command(error.fix),
            ) from None


def _refuse_idle(policy: Policy, options: Mapping[str, click.Option]) -> None:
    """Raise UsageError if a key does nothing without another that the policy has not."""
    preset = PRESETS.get(policy.values.get("preset", ""))
    named = {} if preset is None else {"method": preset.method, "index": preset.index}
    outliers = any(gate.metric == "outliers" for gate in gates_of(policy.values.get("fail-on", ())))
    for key, owners in OWNERS.items():
        if key not in policy.values or (key == "z" and outliers):
            continue
        for owner, wanted in owners:
            value = policy.values.get(owner, named.get(owner, options[owner].default))
            if str(value).replace("_", "-") != wanted:
                raise policy.error(key, f'{key} does nothing without {owner} = "{wanted}"')


def _value(policy: Policy, key: str, value: Any) -> Any:
    if key in ("baseline", "reference") and value != "none":
        return str(policy.file.parent / value)  # they are named from where the policy lies
    return ",".join(value) if key == "projection" and isinstance(value, list) else value


def _name(key: str) -> str:
    return key.replace("-", "_")
