"""What chat templates reach for: nothing in ordinary ones, and every way out of the sandbox that is known."""

from __future__ import annotations

import tracemalloc

import pytest

from s3lora.adapter.inventory.templates import MAX_TEMPLATE, reaches

#: In the style of those of well-known models.
ORDINARY = {
    "llama": """{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}
{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}
{%- endif %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}
{%- set messages = messages[1:] %}{%- else %}{%- set system_message = "" %}{%- endif %}
{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- for message in messages %}{%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- elif 'tool_calls' in message %}{%- if not message.tool_calls|length == 1 %}
{{- raise_exception("This model only supports single tool-calls at once!") }}{%- endif %}
{%- for arg_name, arg_val in message.tool_calls[0].function.arguments | items %}
{{- arg_name + '="' + arg_val + '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}
{%- endif %}{%- endfor %}""",
    "qwen": """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
{%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>')
 and message.content.endswith('</tool_response>')) %}{%- set ns.multi_step_tool = false %}
{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}
{%- set reasoning = message.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{{ messages[loop.index0 - 1].role }}{{ messages[loop.index0 + 1]['role'] }}{% generation %}{{ x }}
{% endgeneration %}""",
    "mistral": """{%- set loop_messages = messages %}
{%- for message in loop_messages | rejectattr("role", "equalto", "tool") %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate') }}{%- endif %}
{%- if loop.last and system_message is defined %}{{ '[INST] ' + system_message + '\\n\\n' }}{%- break %}{%- endif %}
{{- '{"name": "' + tool.name + '", "arguments": ' + tool.arguments|string + '}' }}{%- endfor %}""",
    "gemma": """{{ bos_token }}{% set role = role_map[message.role] if message.role in role_map else message.role %}
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- if messages[0]['content'] is string -%}{%- set first = messages[0]['content'] + '\\n\\n' -%}{%- else -%}
{%- set first = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}
{{ '\\n' ~ message['content'] ~ eos_token }}""",
    "macros": """{%- macro keys(json_dict, handled) %}{%- for key in json_dict | list | reject("in", handled) %}
{{ json_dict[key] | tojson | safe }}{%- endfor %}{%- endmacro %}{{ keys(tool['function']['parameters'], ['type']) }}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('\\n') }}
{% for i in range(messages|length) %}{{ messages[i] }}{% endfor %}{{ '%s: %s' % (role, message.content) }}
{%- set ns = namespace(last='', at=0) %}{%- set ns.at = ns.at + 1 %}
{%- set ns.last = 'tool_' ~ role %}
{{ ns.last ~ messages[ns.at] }}
{{ tool.properties | dictsort }}{{ "__tool__" }}{{ content.replace('__', '') }}{{ '-' * 40 }}{{ x[1:10] }}""",
}
ESCAPES = {
    "{{ x.__class__ }}": "the attribute __class__",
    "{{ x['__class__'] }}": "the item __class__",
    "{{ x._private }}": "the attribute _private",
    "{{ x|attr('__class__') }}": "the attribute __class__",
    "{{ x|attr('\\x5f\\x5fclass\\x5f\\x5f') }}": "the attribute __class__",
    "{{ x|attr(request.args.a) }}": "an attribute by a name that is put together",
    "{{ x['__cl' ~ 'ass__'] }}": "the item __class__",
    "{{ x['__cl' + 'ass__'] }}": "the item __class__",
    "{{ x['_' ~ '_' ~ y] }}": "an item by a name that is put together",
    "{{ x['%c%c' % (95, 95) ~ 'class__'] }}": "the item __class__",
    "{{ x|attr('%s%s'|format('__cl', 'ass__')) }}": "the attribute __class__",
    "{{ x|attr(['__cl', 'ass__']|join) }}": "the attribute __class__",
    "{{ x[['__', 'class', '__']|join('')] }}": "the item __class__",
    "{% set a = '__ssalc__'[::-1] %}{{ x[a] }}": "the item __ssalc__",
    "{% set u = '_' * 2 %}{{ x[u + 'globals' + u] }}": "the item __globals__",
    "{% set a %}__class__{% endset %}{{ x[a] }}": "the item __class__",
    "{% for a in ['_'] %}{{ x[a ~ a ~ 'class' ~ a ~ a] }}{% endfor %}": "an item by a name that is put together",
    "{% set n = namespace(a='_') %}{% set n.a = n.a ~ '_init__' %}{{ x[n.a] }}": "the name __init__",
    "{% set n = namespace(a='_') %}{% set n.a = n.a + m + '_' %}{{ x[n.a] }}": "the item _",
    "{% set n = namespace(a=y) %}{% set n.a = n.a ~ '_' %}{{ x[n.a] }}": "an item by a name that is put together",
    "{% set a = '_' %}{% set a = a ~ '_' %}{{ x[a ~ 'init' ~ a] }}": "the name __init__",
    "{% macro m(a) %}{{ x[a] }}{% endmacro %}{{ m('__init__') }}": "the name __init__",
    "{{ x['__CLASS__'|lower] }}": "the item __class__",
    "{{ [x]|map(attribute='__class__')|list }}": "the attribute __class__",
    "{{ [x]|map('attr', '__class__')|list }}": "the attribute __class__",
    "{{ [x]|groupby('a.__class__') }}": "the attribute a.__class__",
    "{{ dict(__class__=1)|list }}": "the name __class__",
    "{{ '{0.__class__}'.format(x) }}": "an attribute with an underscore, by a format",
    "{{ cycler.__init__.__globals__ }}": "the attribute __globals__",
    "{% include 'x' %}": "another file (include)",
    "{% import 'x' as y %}": "another file (import)",
    "{% from 'x' import y %}": "another file (import)",
    "{% extends 'x' %}": "another file (extends)",
    "{% for i in range(10**9) %}{% endfor %}": "a loop of 1,000,000,000 passes",
    "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}": "a loop of 99,980,001 passes",
    "{{ 10**10**10 }}": "a value too large to be computed",
    "{{ 'a' * 10**9 }}": "a value too large to be computed",
    "{{ 'a'|center(1000000000) }}": "the filter center with a huge number",
    "{{ lipsum() }}": "lipsum, which is of no use to a chat",
    "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}": "a template that is nested too deep to be parsed",
    "{{ x }}" * MAX_TEMPLATE: f"a template of {7 * MAX_TEMPLATE:,} characters, which is too long to be parsed",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_templates_reach_for_nothing(name: str) -> None:
    assert reaches(ORDINARY[name]) == ((), "")


@pytest.mark.parametrize(("source", "what"), ESCAPES.items(), ids=lambda text: text[:40])
def test_what_a_template_reaches_for_is_told(source: str, what: str) -> None:
    assert what in reaches(source)[0]


def test_the_name_through_a_long_sum_is_told() -> None:
    source = "{{ x[" + " + ".join(["'_'", "'_'", *["'a'"] * 150]) + "] }}"
    assert reaches(source)[0] == ("an item by a name that is put together",)


def test_joining_long_texts_is_not_done() -> None:
    long = "x" * 10_000
    assert reaches("{% set a = '" + long + "' %}" + "{{ a.join(a) }}{{ a|join(a) }}" * 2000) == ((), "")


def test_texts_that_grow_are_not_made() -> None:
    long = "{% set a = '" + "x" * 10_000 + "' %}{% set t = [" + ",".join("a" for _ in range(999)) + "] %}"
    reaches(long + "{% set f = '" + "%s" * 5000 + "' %}" + "{{ f % t ~ '' }}" * 1000)
    tracemalloc.start()
    reaches(long + "{{ " + " ~ ".join("a" for _ in range(6000)) + " }}")
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()


def test_what_is_no_template_gets_a_note() -> None:
    for source in ("{% for", "{{ " + "9" * 5000 + " }}", "{% nothing %}", "{{ 'a }}"):
        runs, note = reaches(source)
        assert (runs, "cannot be parsed" in note) == ((), True)
    assert reaches("plain text") == reaches("") == ((), "")


def test_no_more_is_told_than_can_be_read() -> None:
    runs, _ = reaches("".join(f"{{{{ x._a{i} }}}}" for i in range(200)))
    assert len(runs) == 51
    assert runs[-1] == "and 150 more"
