"""What transformers' Jinja makes of templates: the language piece by piece, and conversations in the manner of each family of models.

Writes tests/golden/chat_templates.json: {"origin", "cases": [{"name", "template", "variables", then "text" (and "generation", the texts of
{% generation %} blocks) or "error": true}],
"masks": conversations as the ids and assistant masks of transformers' apply_chat_template}. The templates are written for this file. strftime_now is fixed: its variable `now` is a time in UTC.
"""

import json
from datetime import datetime, timezone

import jinja2
import transformers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from golden import FOLDER

NOW = 1700000000

# ---- the language, an expression or a few lines at a time ---------------------------------------------

X = {
    "s": "  Hello, World \n", "u": "été ÀÉ ß \u00a0", "n": 7, "f": 2.5, "t": True, "no": False, "nil": None, "empty": "", "l": [3, 1, 2], "words": ["b", "A", "c"],
    "d": {"b": 1, "a": "x", "C": [1, 2.0, None, True, "q'\"\n"]}, "emoji": "a😀b",
    "ms": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A", "n": 3}],
    "schema": {"type": "object", "properties": {"où": {"type": "string", "enum": ["<a>", "b&c"]}, "n": {"type": "number", "items": 1}}, "required": []},
}

EXPRESSIONS = """
s | s|trim | s.strip() ~ '.' | s|upper | s|lower | u|upper | u|lower | u|trim ~ '|' | u|length | emoji|length | emoji[1] | emoji[-1] | emoji[::-1] | emoji[1:] | emoji[:-1] | s[2:7] | s[100:] | s[:3] ~ '|' | l[0] | l[-1] | l[5] | l[-4]
l[1:] | l[::-1] | l[::2] | l[-2:] | l[2:0:-1] | l[5:1] | l[:none] | d.a | d['a'] | d.b | d.zz | d['zz'] | d.C[4] | d.C | d | l | (1, 'a') | (1,) | () | [] | {} | {'k': [1, {'z': none}]} | [1.0, 1e20, 1e-7, 0.1, 123456789.125, 1e16, 1e15, 0.0001, 1e300]
n + 1 | n - 10 | n * 2.5 | n / 2 | n // 2 | n % 3 | -n // 2 | -n % 3 | n // -2 | n % -3 | -7.5 // 2 | 7.5 % -2 | 2 ** 10 | 2 ** -1 | 2 ** 3 ** 2 | -2 ** 2 | n + f | t + 1 | 'ab' * 3 | [1, 2] * 2 | 'a' + 'b' | [1] + [2] | 'x' ~ 1 ~ none ~ true ~ 1.5 | 1 ~ (2 + 3) | nil ~ '' | undef ~ 'x' | -f | +n | - n|abs | 1_000
1 == 1.0 | '1' == 1 | true == 1 | none == none | undef == none | l == [3, 1, 2] | (1, 2) == [1, 2] | {'a': 1} == {'a': 1.0} | 1 < 2 < 3 | 1 < 3 < 2 | 'a' < 'b' | 'Z' < 'a' | [1, 2] < [1, 3] | 1 != 2 | 'a' in 'abc' | 'z' not in 'abc' | 3 in l | 'b' in d | 'x' in d | 'x' in undef | 1 not in [2] | 'A' in words
t and n | no or 'x' | not t | not undef | no and undef.x | t or undef.x | '' or [] or 'z' | none or 0 | 'y' if t else 'n' | 'y' if no | 'y' if no else 'm' if no else 'k' | not n == 7 | not (n is defined)
undef is defined | undef is undefined | s is defined | d.zz is defined | d.a is defined | nil is none | undef is none | s is string | n is string | n is number | t is number | n is integer | t is integer | f is integer | f is float | t is boolean | n is boolean | t is true | no is false | n is true | d is mapping | l is mapping | l is iterable | n is iterable | s is iterable | undef is iterable | l is sequence | d is sequence | s is sequence | n is sequence | undef is sequence | n is odd | n is even | n is divisibleby 7 | n is divisibleby(2) | n is eq 7 | n is equalto 8 | n is ne 7 | n is gt 6 | n is ge(7) | n is lt 7 | n is le 7 | n is in l | 3 is in [3] | 3 is not in [3] | 'abc' is lower | 'Ab' is upper | 'AB1' is upper | '12' is lower | n is not none | n is sameas 7 | range is callable | strftime_now is defined | raise_exception is defined | namespace is defined | nothing_like is defined | undef is callable | f is odd | f is even | -7.5 is odd | n is not string and t
undef | undef|length | undef|default('D') | empty|default('D') | empty|default('D', true) | empty|default('D', boolean=true) | nil|default('D') | nil|d('D', true) | d.zz|default | undef|list | undef|join(',') | undef|trim | undef|upper
words|join | words|join(', ') | l|join('-') | ms|join('/', attribute='role') | 'abc'|join('.') | words|first | words|last | []|first | 'abc'|first | 'abc'|last | words|length | d|length | words|sort | words|sort(case_sensitive=true) | l|sort(reverse=true) | ms|sort(attribute='role')|map(attribute='role')|join | l|reverse|list | 'abc'|reverse | l|max | l|min | words|min | l|sum | ms|sum(attribute='n', start=1) if false else 1 | [1, 2.5]|sum | l|unique|list | ['a', 'A', 'b']|unique|join
'heLLo wORld-foo (bar)'|title | "they're o'neil"|title | "they're o'neil x1y".title() | 'heLLo wORld'|capitalize | 'hELLO'.capitalize() | 'a-b-a'|replace('a', 'x') | 'a-b-a'|replace('a', 'x', 1) | 'aaa'.replace('a', 'b', 2) | 'ab'.replace('', '-') | 'x'|replace('x', 1) | '12'|int + 1 | '12.7'|int | 'abc'|int | 'abc'|int(5) | ' 12 '|int | '+5'|int | 3.9|int | -3.9|int | true|int | '2.5'|float | 'x'|float | '1e3'|float | 7|float | 3|string + '4' | none|string | 2.5|round | 3.5|round | 2.675|round(2) | 2.5|round|int | 2.1|round(method='ceil') | 2.789|round(1, 'floor') | 7|round | -5|abs | 5.5|abs
d|tojson | schema|tojson | schema|tojson(indent=2) | schema|tojson(indent=4) | d|tojson(indent=none) | schema|tojson(ensure_ascii=true) | schema|tojson(separators=(',', ':')) | {'b': 1, 'a': 2}|tojson(sort_keys=true) | []|tojson(indent=2) | {}|tojson(indent=2) | [[], {}, [1]]|tojson(indent=1) | emoji|tojson | emoji|tojson(ensure_ascii=true) | '\\x7f\\x00\\x1f\\u2028/'|tojson | 1.0|tojson | 1e20|tojson | none|tojson | true|tojson | 'é'|tojson | (1, 2)|tojson
d|dictsort | d|dictsort(true) | d|dictsort(reverse=true)|first | {'a': 2, 'b': 1}|dictsort(by='value') | d|items|list | d.items()|list | d.keys()|list | d.values()|list|length | d.get('a') | d.get('zz') | d.get('zz', 'D') | d|list | schema.properties.n['items'] | schema.properties['où']['items'] is defined | schema.properties.n.items is defined
ms|map(attribute='role')|join(',') | ms|map(attribute='n')|list|length | ms|map(attribute='n', default='D')|join | words|map('upper')|join | words|map('replace', 'b', 'x')|join | ms|selectattr('role', 'equalto', 'user')|map(attribute='content')|first | ms|rejectattr('role', '==', 'user')|list|length | ms|selectattr('n')|list|length | ms|selectattr('n', 'defined')|map(attribute='role')|list | [0, 1, '', 'a']|select|list | [0, 1, '', 'a']|reject|list | l|select('gt', 1)|list | l|reject('odd')|list | 'yes' if ms|selectattr('role', 'equalto', 'nobody') else 'no' | 'yes' if ms|selectattr('role', 'equalto', 'nobody')|list else 'no'
'a,b,,c'.split(',') | ' a  b c '.split() | ' a  b c '.split(none, 1) | 'a b c'.split(' ', 1) | 'a.b.c'.rsplit('.', 1) | ' a  b c '.rsplit(none, 1) | 'a</think>b'.split('</think>')[-1] | 'xxaxx'.strip('x') | 'xyaxy'.lstrip('xy') | 'xyaxy'.rstrip('yx') | 'abc'.startswith('ab') | 'abc'.endswith(('x', 'c')) | 'abc'.find('c') | 'été'.find('é', ) | 'abcabc'.rfind('b') | 'abc'.find('z') | 'banana'.count('an') | 'abc'.isalpha() | '12'.isdigit() | 'a1'.isalnum() | ' '.isspace() | ''.isalpha() | 'a\\nb\\r\\nc\\n'.splitlines() | '-'.join(words) | 'prefix-x'.removeprefix('prefix-') | 'x.txt'.removesuffix('.txt') | 'Ab'.lower() | 'Ab'.upper() | l.index(2) | l.count(3) | ' é '.strip()
'a\\nb\\n\\nc'|indent | 'a\\nb\\n'|indent(2) | 'a\\nb'|indent(2, true) | 'a\\n\\nb'|indent(1, blank=true) | 'a\\nb'|indent('> ') | ' x '|trim|length | 'xxaxx'|trim('x') | u|capitalize | u|title | u.title() | 'ŒUVRE'|lower | 'straße'|title | 'ǆ'|capitalize
range(3)|list | range(1, 4)|list | range(5, 0, -2)|list | range(0)|list | range(3)|length if false else 0 | dict(a=1, b='x') | dict({'a': 1}, b=2) | strftime_now('%Y-%m-%d') | strftime_now('%d %b %Y') | strftime_now('') | namespace(a=1).a | 'it''s' | "a" 'b' | 'tab\\there' | 'q\\'q' | '\\u00e9\\x41\\101' | '\\d' | '{{ x }}' | '%}' | {'a': {'b': {'c': 1}}}.a.b.c | l.0 | [[1, 2], [3]].0.1 | (1, 2)[0] | ((1)) | {'a': 1,}.a | [1, 2,][1] | s|trim|upper|lower|length | (s|trim).split(',')[0] | ms[0].role ~ ms[-1]['content'] | 1 if 0 else 2 if 0 else 3 | d.C|length > 2 and d.C[0] == 1
"""

# These Python refuses, and so must mezzo.
ERRORS = """
undef.x | undef['x'] | undef() | undef + 1 | 1 + undef | 'a' + 1 | 1 + 'a' | none + 'a' | undef < 1 | 1 < 'a' | none < 1 | 1 in 'abc' | 1 in 2 | 1 / 0 | 1 // 0 | 1 % 0 | -undef | d + d | l + (1,) | n() | n|length | none|length | l|join(1)|foo | l is foo | 'a'.foo() | d.pop('a') | l.append(1)
raise_exception('no') | 'a'.split('') | l.index(9) | [1, 2]|map('nofilter')|list | l|selectattr('x', 'notest')|list | range(0, 1, 0) | range(1000000) | (l|map('upper'))|length | {}|dictsort(by='x') | [1, 'a']|sort | undef|tojson | undef|int | 'abc'|round | namespace(1) | ''.join([1]) | l[0:1:0] | n[1:2] | 'x'.startswith(1) | none|items|list | n|indent | l|map('string')|last | l|map('string') < l | n[1:] | (1, 'a')|max | 1 2 | 1 + | a b | (1 | [1 | {1 | }) | x. | x[ | x[] | f( | f(a=1, 2) | 'abc | not | x is | ~ | 3a | $ | a ? b | {% if
"""

STATEMENTS = {
    "if": "{% if n > 5 %}big{% elif n > 3 %}mid{% else %}small{% endif %}|{% if undef %}x{% endif %}|{% if no %}a{% elif t %}b{% endif %}",
    "for": "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}:{{ x }};{% endfor %}",
    "for neighbours": "{% for m in ms %}{{ loop.previtem.role if loop.previtem is defined else '-' }}<{{ m.role }}>{{ loop.nextitem.role if not loop.last }} {% endfor %}",
    "for else": "{% for x in [] %}x{% else %}none{% endfor %}{% for x in l if x > 9 %}x{% else %}nothing{% endfor %}{% for x in undef %}{% else %}undefined{% endfor %}",
    "for filter": "{% for x in l if x != 1 %}{{ loop.index }}/{{ loop.length }}={{ x }} {% endfor %}{% for m in ms if m.role == 'user' %}{{ m.content }}{% endfor %}",
    "for pairs": "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k, v in d|items %}{{ k }}{% endfor %}{% for (a, b) in [(1, 2), [3, 4]] %}{{ a + b }} {% endfor %}",
    "for dict, string": "{% for k in d %}{{ k }}{% endfor %}{% for c in emoji %}[{{ c }}]{% endfor %}{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "for nested": "{% for a in l %}{% for b in words %}{{ loop.index }}{{ a }}{{ b }} {% endfor %}{{ loop.index }};{% endfor %}",
    "for scope": "{% set x = 0 %}{% for i in l %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}{{ i is defined }}",
    "for cycle": "{% for i in l %}{{ loop.cycle('odd', 'even') }} {% endfor %}",
    "break continue": "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}.",
    "break nested": "{% for i in l %}{% for j in l %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
    "set": "{% set a = 1 %}{% set b, c = 2, 'x' %}{% set d2 = (a, b) %}{{ a }}{{ b }}{{ c }}{{ d2 }}{% if t %}{% set a = 5 %}{% endif %}{{ a }}",
    "set block": "{% set b %}<{{ n }}>{% set inner = 3 %}{% endset %}[{{ b }}]{{ b|length }}{{ inner is defined }}{% set c | upper | trim %} abc {% endset %}{{ c }}.",
    "namespace": "{% set ns = namespace(found=false, i=0) %}{% for x in l %}{% set ns.i = ns.i + x %}{% if x == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}{{ ns.i }}{{ ns.zz is defined }}{% set ns.new = [1] %}{{ ns['new'] }}",
    "macro": "{% macro f(a, b='B', c=none) %}({{ a }},{{ b }},{{ c }}){% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(1, c=3) }}{{ f() }}{{ f(1)|length }}{{ f(b=f(2), a=0) }}",
    "macro scope": "{% set g = 'G' %}{% macro f(x) %}{{ g }}{{ x }}{{ late }}{% set g2 = 1 %}{% endmacro %}{% set late = 'L' %}{{ f('!') }}{{ g2 is defined }}{% for i in l %}{{ f(i) }}{% endfor %}",
    "macro recursive": "{% macro walk(v, depth=0) %}{% if v is mapping %}{{ '{' }}{% for k, x in v|items %}{{ k }}:{{ walk(x, depth + 1) }}{{ ',' if not loop.last }}{% endfor %}{{ '}' }}{% elif v is iterable and v is not string %}[{% for x in v %}{{ walk(x, depth + 1) }}{% endfor %}]{% else %}{{ v }}@{{ depth }}{% endif %}{% endmacro %}{{ walk(schema) }}{{ walk(d) }}",
    "macro in if": "{% if t %}{% macro f() %}yes{% endmacro %}{% endif %}{{ f() }}",
    "macro space": "{% macro f() -%}\n   x \n{%- endmacro %}[{{ f() }}]",
    "filter block": "{% filter upper %}abc {{ n }}{% endfilter %}{% filter trim | replace('b', 'x') %}  abc  {% endfilter %}|",
    "raw": "a {% raw %}{{ x }} {% if %}{% endraw %} b{%- raw -%}  {# no comment #}  {%- endraw -%}  c",
    "generation": "{% for m in ms %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<end>{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}{% generation %}{% set q = 1 %}{% endgeneration %}{{ q is defined }}",
    "comments": "a{# one #}b {#- two -#} c{# {{ x }} {% if %} #}d\n{# a line #}\ne",
    "trim blocks": "{% if t %}\na\n{% endif %}\n\nb\n{{ n }}\nc\n",
    "lstrip blocks": "x\n    {% if t %}\n  a\n    {% endif %}\n  {# c #}\n  {{ n }}\n \t {% set z = 1 %} y {% set w = 2 %}\n",
    "lstrip at start": "   {% if t %}a{% endif %}   {% if t %}b{% endif %}",
    "signs": "a  {%- if t -%}  b  {%- endif -%}  c  {{- n -}}  d  {#- e -#}  f\n\n{%- if t %}\ng\n{%- endif %}\nh",
    "plus signs": "  {%+ if t %}a\n  {%+ endif +%}\nb\n  {#+ c +#}\nd {{+ n }}",
    "minus number": "{{-1}}{{ -1 }}{{- 1 }}{{ 2 -}} 3",
    "line ends": "a\r\nb\rc\n{% if t %}\r\nx\r\n{% endif %}\r\ny\r\n",
    "last line end": "{{ n }}\n\n", "last line end 2": "a\n",
    "unicode space": "a \u00a0\u2003{%- if t -%}\u3000\u0085b{% endif %}\n \u2003{% if t %}c{% endif %}",
    "braces": "{{ {'a': {'b': 1}} }}{{ {'a': {'b': 2}}['a']['b'] }} { } } }} %} #} {a{{ n }}}",
    "strings with tags": "{{ '}}' }}{{ \"{% if %}\" }}{% set x = '%}' %}{{ x }}{{ '{#' }}",
    "tag over lines": "{{ [\n  1,\n  2\n] }}{% set x = {\n 'a': 1,\n} %}{{ x\n.a }}",
    "empty": "", "only comment": "{# x #}", "empty for": "{% for x in l %}{% endfor %}",
    "generator twice": "{% set g = l|map('string') %}{{ g|join }}{{ g|join }}.",
    "loop variable of the outer loop": "{% for a in l %}{% set outer = loop %}{% for b in l %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "reversed search": "{% set ns = namespace(last=-1, go=true) %}{% for m in ms[::-1] %}{% if ns.go and m.role == 'user' %}{% set ns.go = false %}{% set ns.last = (ms|length - 1) - loop.index0 %}{% endif %}{% endfor %}{{ ns.last }}",
    "if test": "{{ 'a' if s is string and n is number else 'b' }}{{ 'c' if nil is not none else 'd' }}{% if ms[0]['role'] == 'system' and ms|length is gt 1 %}e{% endif %}",
}

STATEMENT_ERRORS = {
    "unclosed if": "a\n{% if t %}\nb", "unclosed for": "{% for x in l %}", "stray end": "{% endif %}", "stray else": "{% else %}", "wrong end": "{% if t %}{% endfor %}",
    "unknown tag": "{% foo %}", "unclosed tag": "{% if t", "unclosed variable": "{{ n", "unclosed comment": "{# x", "unclosed raw": "{% raw %} x", "unclosed string": "{{ 'a }}",
    "unpack": "{% for a, b in l %}{% endfor %}", "unpack count": "{% set a, b = [1, 2, 3] %}", "break outside": "{% break %}", "iterate number": "{% for x in n %}{% endfor %}", "iterate none": "{% for x in nil %}{% endfor %}",
    "set on dict": "{% set d.x = 1 %}", "set constant": "{% set true = 1 %}", "macro arguments": "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "macro named": "{% macro f(a) %}{% endmacro %}{{ f(b=2) }}", "macro twice": "{% macro f(a) %}{% endmacro %}{{ f(1, a=2) }}",
    "endless": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "no name": "{% macro () %}{% endmacro %}", "no condition": "{% if %}{% endif %}", "no in": "{% for x l %}{% endfor %}", "empty output": "{{ }}",
}

# ---- conversations --------------------------------------------------------------------------------------

SYSTEM = {"role": "system", "content": "  Be brief.  "}
CHAT = [{"role": "user", "content": "Hi, what is 2 + 2?"}, {"role": "assistant", "content": "It is 4."}, {"role": "user", "content": " And 3 + 3?\n"}, {"role": "assistant", "content": "  6 \n"}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 3, "b": [1, 2.5, "é"]}}}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds \"numbers\" & more.", "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "array"}}, "required": ["a"]}}}]
TOOL_CHAT = [SYSTEM, CHAT[0], {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}, {"role": "tool", "name": "add", "content": "{\"sum\": 4}"}, {"role": "tool", "content": "again"}, {"role": "assistant", "content": "4"}]
THINK_CHAT = [CHAT[0], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFour."}, CHAT[2], {"role": "assistant", "reasoning_content": "so", "content": "Six."}]
CONVERSATIONS = {"chat": CHAT, "system": [SYSTEM, *CHAT], "open": CHAT[:3], "one": CHAT[:1], "tools": TOOL_CHAT, "think": THINK_CHAT, "bad order": [CHAT[1], CHAT[0]]}

CHATML = """{% for m in messages %}{% if loop.first and m['role'] != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
FAMILIES = {
    "chatml": CHATML,
    "chatml marked": CHATML.replace("{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}", """{{ '<|im_start|>' ~ m.role ~ '\\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content ~ '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content ~ '<|im_end|>' }}{% endif %}{{ '\\n' }}"""),
    "llama2": """{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set turns = messages %}{% set system = false %}{% endif %}
{%- for turn in turns %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('user and assistant take turns, user first') }}
    {%- endif %}
    {%- set text = '<<SYS>>\\n' + system.strip() + '\\n<</SYS>>\\n\\n' + turn['content'] if loop.first and system is not false else turn['content'] %}
    {%- if turn['role'] == 'user' %}
        {{- bos_token + '[INST] ' + text.strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + text | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}""",
    "llama3": """{{- bos_token }}
{%- if date_string is not defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 Jan 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system + "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if message.tool_calls | length > 2 %}{{- raise_exception("too many calls") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is not string and message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{%- set users = rest | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(count=0) %}
{%- for m in rest %}
    {%- if m.role in ["user", "assistant"] and not m.tool_calls %}
        {%- if (m["role"] == "user") != (ns.count % 2 == 0) %}
            {{- raise_exception("conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.count = ns.count + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for m in rest %}
    {%- if m["role"] == "user" %}
        {%- if tools is not none and (m == users[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system is defined %}
            {{- "[INST] " + system + "\\n\\n" + m["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + m["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif m.tool_calls is defined and m.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for call in m.tool_calls %}
            {%- set out = call.function|tojson %}
            {{- out[:-1] }}
            {{- ', "id": "' + '%' ~ loop.index0 + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif m["role"] == "assistant" %}
        {{- " " + m["content"]|trim + eos_token }}
    {%- elif m["role"] == "tool" %}
        {%- set content = m.content.content if m.content is mapping and m.content.content is defined else m.content %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + "}[/TOOL_RESULTS]" }}
    {%- else %}
        {{- raise_exception("unknown role: " + m["role"]) }}
    {%- endif %}
{%- endfor %}
""",
    "qwen": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- else %}{{- 'You are a helper.' }}{%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\n<tool_call>\\n{\\"name\\": <name>}\\n</tool_call><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(looking=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.looking and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.looking = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "phi": """{% for message in messages %}{% if message['role'] in ['system', 'user', 'assistant'] and message['content'] %}{{'<|' + message['role'] + '|>' + '
' + message['content'] + '<|end|>' + '
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}""",
    "gemma": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must alternate") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",
}


def masks():
    out = []
    for name in ("smollm", "llama3", "qwen2"):
        file = FOLDER / "tokenizers" / f"{name}.json"
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="<|im_end|>", chat_template=FAMILIES["chatml marked"])
        for conversation in ("chat", "system", "think"):
            r = tokenizer.apply_chat_template(CONVERSATIONS[conversation], return_dict=True, return_assistant_tokens_mask=True)
            out.append({"tokenizer": name, "conversation": conversation, "ids": r["input_ids"], "mask": r["assistant_masks"]})
    return out


class Clock(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(NOW, timezone.utc)


def render(template, variables):
    compiled = chat_template_utils._compile_jinja_template(template)
    blocks, indices = [], []
    with compiled.environment.activate_tracker(blocks, indices):
        for block in compiled.generate(variables):
            blocks.append(block)
    text = "".join(blocks)
    return text, [text[begin:end] for begin, end in indices]


def case(name, template, variables, wants_error):
    out = {"name": name, "template": template, "variables": variables}
    try:
        out["text"], generation = render(template, json.loads(json.dumps(variables)))
        if "generation" in template:
            out["generation"] = generation
    except Exception as e:  # whatever Python raises
        if not wants_error:
            raise SystemExit(f"{name}: {template}: {e!r}")
        out["error"] = True
    else:
        if wants_error:
            raise SystemExit(f"{name}: {template}: no error but {out['text']!r}")
    return out


def pieces(text):
    return [e.strip() for line in text.strip().splitlines() for e in line.split(" | ")]


def main():
    chat_template_utils.datetime = Clock
    cases = []
    for e in pieces(EXPRESSIONS):
        cases.append(case(e, "{{ " + e + " }}", X, False))
    for e in pieces(ERRORS):
        cases.append(case(e, "{{ " + e + " }}", X, True))
    for name, template in STATEMENTS.items():
        cases.append(case(name, template, X, False))
    for name, template in STATEMENT_ERRORS.items():
        cases.append(case(name, template, X, True))
    for c in cases:
        c["variables"] = "X"
    for family, template in FAMILIES.items():
        for conversation, messages in CONVERSATIONS.items():
            for prompt in (False, True):
                for tools in [None] + [TOOLS] * (conversation == "tools"):
                    variables = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": prompt, "bos_token": "<s>", "eos_token": "</s>"}
                    name = f"{family}, {conversation}{', prompt' * prompt}{', tools' * bool(tools)}"
                    try:
                        cases.append(case(name, template, variables, False))
                    except SystemExit:
                        cases.append(case(name, template, variables, True))
                    cases[-1]["template"] = family
                    cases[-1]["variables"] = {"messages": conversation, "tools": bool(tools), "add_generation_prompt": prompt}
    facts = {"script": "tools/golden/chat_templates.py", "transformers": transformers.__version__, "jinja2": jinja2.__version__, "now": NOW}
    file = {"origin": facts, "X": X, "templates": FAMILIES, "conversations": CONVERSATIONS, "tools": TOOLS, "cases": cases, "masks": masks()}
    lines = [f"{json.dumps(key)}: " + (json.dumps(value, ensure_ascii=False) if key not in ("cases", "masks") else "[\n" + ",\n".join(json.dumps(v, ensure_ascii=False) for v in value) + "\n]") for key, value in file.items()]
    (FOLDER / "chat_templates.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"chat_templates.json: {len(cases)} cases, {sum('error' in c for c in cases)} of them errors")


if __name__ == "__main__":
    main()
