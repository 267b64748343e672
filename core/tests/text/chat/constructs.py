"""Writes constructs.json: what jinja2 3.1.6 makes of constructs that published chat templates use.

The environment is the one of transformers: trimmed blocks, loop controls, `generation` tags, its own `tojson`.
"""

import datetime
import json
import pathlib

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(why):
    raise RuntimeError(why)


jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
jinja.filters["tojson"] = tojson
jinja.globals["raise_exception"] = raise_exception
jinja.globals["strftime_now"] = datetime.datetime(2026, 11, 29, 5, 25).strftime
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who's there, at 5 < 6 & \"7\"?"},
    {"role": "assistant", "content": "  <think>\nhm\n</think>\n\nNobody.\n"},
    {"role": "user", "content": ""},
]
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>", "tools": None, "documents": None, "add_generation_prompt": True}

CONSTRUCTS = [
    # Tests of values.
    "{{ none is iterable }}{{ none is sequence }}{{ none is mapping }}{{ none is string }}{{ none is none }}",
    "{{ 'x' is iterable }}{{ 'x' is sequence }}{{ 'x' is mapping }}{{ 'x' is string }}{{ '' is sequence }}",
    "{{ {} is iterable }}{{ {} is sequence }}{{ {} is mapping }}{{ messages[0] is sequence }}",
    "{{ [] is iterable }}{{ [] is sequence }}{{ (1, 2) is sequence }}{{ range(3) is iterable }}",
    "{{ 1 is iterable }}{{ 1 is sequence }}{{ 1.5 is iterable }}{{ true is iterable }}{{ true is sequence }}",
    "{{ nothing is iterable }}{{ nothing is sequence }}{{ nothing is mapping }}{{ nothing is string }}{{ nothing is none }}",
    "{{ nothing is defined }}{{ tools is defined }}{{ tools is none }}{{ documents is defined }}{{ messages[0].tool_calls is defined }}",
    "{{ true is number }}{{ true is integer }}{{ true is boolean }}{{ 1 is boolean }}{{ 1.0 is float }}{{ 1 is float }}{{ true is float }}",
    "{{ 'ab' is in 'abc' }}{{ 'd' in 'abc' }}{{ 'role' in messages[0] }}{{ 3 in [1, 2] }}{{ 3 not in (1, 2) }}",
    "{{ 1 is odd }}{{ 2 is even }}{{ 9 is divisibleby 3 }}{{ 'a' is lower }}{{ 'a' is upper }}{{ 1 is eq 1 }}{{ 1 is ne 1 }}{{ 2 is gt 1 }}",
    "{{ true is true }}{{ 1 is true }}{{ false is false }}{{ none is false }}{{ 1 is sameas 1 }}{{ 'a' is callable }}{{ range is callable }}",
    "{% if tools is iterable and tools | length > 0 %}tools{% else %}none{% endif %}",
    "{% if tools is not none and tools is iterable %}tools{% endif %}{{ 'end' }}",
    "{%- if messages[0].content is string -%}text{%- elif messages[0].content is iterable -%}parts{%- endif -%}",
    "{% if messages is iterable and messages is not string and messages is not mapping %}list{% endif %}",
    # Line breaks and white space.
    "a\r\nb{{ 'c\r\nd' }}\re\r\n\r\n",
    "{% if true %}\r\n  x\r\n{% endif %}\r\ny\r\n",
    "{%- for m in messages -%}\r\n{{ m.role }}\r\n{% endfor -%}\r\n!",
    "a\n\n",
    "\n  {% if true %}\n    b\n  {% endif %}\n  c\n",
    "x {#- a comment -#} y {# another #} z\n{# a line #}\nw",
    "a  {%+ if true %} b{% endif +%}\n c",
    "{{- ' a ' -}}  b  {{- ' c ' }}",
    "{% if true -%}\n\n  a\n{%- endif %}",
    # The date.
    "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%B %-d, %A %H:%M') }}",
    "{% if strftime_now is defined %}{% set today = strftime_now('%d %B %Y') %}{% else %}{% set today = '1' %}{% endif %}{{ today }}",
    # Special tokens.
    "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ bos_token + 'x' }}",
    # Texts.
    "{{ 'a-b-c'.rsplit('-', 1) }}{{ 'a-b-c'.rsplit('-') }}{{ ' a  b c '.rsplit(none, 1) }}{{ 'abc'.rsplit('x') }}{{ ' a b '.rsplit() }}",
    "{{ 'a-b-c'.split('-', 1) }}{{ 'a-b-c'.split('-', maxsplit=1) }}{{ ' a  b c '.split(none, 1) }}{{ ''.split() }}{{ ''.split('x') }}{{ ' a  b '.split(' ') }}",
    "{{ 'a\n b\tc'.split() }}{{ 'a,b'.split(sep=',') }}{{ 'aXbX'.split('X') }}{{ ' a '.split(none, 0) }}",
    "{{ 'a-b-c'.partition('-') }}{{ 'a-b-c'.rpartition('-') }}{{ 'abc'.partition('-') }}{{ 'abc'.rpartition('-') }}{{ 'a=b'.partition('=')[2] }}",
    "{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('c') }}{{ 'abc'.removeprefix('x') }}{{ 'aab'.removeprefix('a') }}",
    "{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3) }}|{{ 'a'.center(4) }}|{{ 'ab'.center(5) }}|{{ 'a'.ljust(3, '.') }}|{{ 'é'.rjust(3, '-') }}|{{ 'abc'.ljust(2) }}|{{ 'a'.ljust(-1) }}",
    "{{ 'a'|center(4) }}|{{ 'ab'|center(5) }}|{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ 'abc'.zfill(2) }}|{{ '+'.zfill(3) }}",
    "{{ 'abcb'.index('b') }}{{ 'abcb'.rindex('b') }}{{ 'abcb'.find('b') }}{{ 'abcb'.rfind('b') }}{{ 'a'.find('x') }}{{ 'éab'.index('b') }}",
    "{{ 'abc'.index('x') }}",
    "{{ 'aB'.swapcase() }}{{ \"don't stop_it\".title() }}{{ \"don't stop_it\"|title }}{{ 'aBC dE'.capitalize() }}{{ 'aBC'|capitalize }}",
    "{{ 'a\nb\r\nc\n'.splitlines() }}{{ 'a\nb\n'.splitlines(true) }}{{ ''.splitlines() }}",
    "{{ '12'.isdigit() }}{{ '12'.isdecimal() }}{{ 'a1'.isalnum() }}{{ 'a'.isalpha() }}{{ ' '.isspace() }}{{ 'a'.islower() }}{{ 'A'.isupper() }}{{ ''.isdigit() }}",
    "{{ '  x '.strip() }}|{{ '\n x'.lstrip('\n') }}|{{ 'x--'.rstrip('-') }}|{{ 'abxba'.strip('ab') }}|{{ ' x '|trim }}|{{ '--x'|trim('-') }}|{{ '--x'|trim(chars='-') }}",
    "{{ 'abc'.startswith('ab') }}{{ 'abc'.startswith(('x', 'a')) }}{{ 'abc'.endswith('bc') }}{{ 'abc'.count('b') }}",
    "{{ 'aXbXc'.replace('X', '-') }}{{ 'aXbXc'.replace('X', '-', 1) }}{{ 'aXbXc'|replace('X', '-') }}{{ 'aXbXc'|replace('X', '-', 1) }}",
    "{{ '-'.join(['a', 'b']) }}{{ ['a', 1, none]|join('-') }}{{ messages|join(',', attribute='role') }}{{ ['a', 'b']|join(d='+') }}",
    "{{ 'a{}b{}'.format(1, 'x') }}{{ '{0}{1}{0}'.format('a', 'b') }}{{ '{n}!'.format(n='c') }}{{ '{:>4}|{:<4}|{:^4}'.format(1, 'a', 'b') }}{{ '{:.2f} {:05d} {:x}'.format(3.14159, 42, 255) }}{{ '{{}}' }}",
    "{{ 'a%sb' % 'x' }}{{ '%s and %s' % ('a', 1) }}{{ '%d%%' % 5 }}{{ '%.1f|%5d|%-5s|%05d' % (3.14159, 42, 'ab', 42) }}{{ '%(a)s%(a)s' % {'a': 'z'} }}",
    "{{ 'x: %s' % messages[0].content|upper }}{{ ('%s' % 'a') * 2 }}{{ '%s' % 'a' ~ 'b' }}{{ '%s' % ('a' if true else 'b') }}",
    "{{ 'a%sb'|format('x') }}{{ '%s-%s'|format(1, 2) }}{{ '%(k)s'|format(k='v') }}",
    "{{ 'ab' * 2 }}{{ 2 * 'ab' }}{% set n = 3 %}{{ '=' * n }}{{ '-' * (n + 1) }}{{ 'a' * 0 }}{{ 'a' * -1 }}",
    "{{ 2 * 3 }}{{ n * 2 if n is defined else 4 * 5 }}{% set k = 4 %}{{ k * 2 + 1 }}{{ 1 + k * -2 }}{{ k * k % 3 }}{{ 2 ** k * 2 }}{{ -k * 2 }}{{ messages|length * 2 }}",
    "{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % 3 }}{{ -7 % 3 }}{{ 7 / 2 }}{{ 4 / 2 }}{{ 2 ** 10 }}{{ 1.5 * 2 }}{{ 10 % 4 * 2 }}",
    "{{ 1e16 }} {{ 1e15 }} {{ 1e-5 }} {{ 0.0001 }} {{ 1.5e300 }} {{ 1e3 }} {{ 0.1 + 0.2 }} {{ 1.0 }} {{ 100000000.0 }} {{ 123456789.125 }}",
    "{{ '3'|int + 1 }}{{ 'x'|int }}{{ 'x'|int(7) }}{{ 'x'|int(default=8) }}{{ ' 42 '|int }}{{ '3.9'|int }}{{ 3.9|int }}{{ none|int }}{{ [1]|int }}{{ true|int }}{{ ''|int }}",
    "{{ nothing|int }}",
    "{{ '3.5'|float }}{{ 'x'|float }}{{ 'x'|float(1.5) }}{{ none|float }}{{ 3|float }}{{ 3.456|round(1) }}{{ 2.5|round }}{{ -3|abs }}",
    "{{ ''|default('b') }}|{{ ''|default('b', true) }}|{{ ''|default('b', boolean=true) }}|{{ none|default('b', boolean=True) }}|{{ nothing|default('b') }}|{{ nothing|d('c') }}|{{ none|default('b') }}|{{ nothing|default }}|{{ 'a'|default(default_value='b') }}",
    "{{ '<a href=\"x\">&\\'</a>'|e }}{{ \"it's\"|escape }}{{ 5|e }}{{ '<'|e|e }}{{ '<b>'|safe }}",
    "{{ 'a\nb'|indent(2) }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent }}|{{ 'a\nb'|indent(width=1, first=true) }}",
    "{{ 'abc'|length }}{{ '日本'|length }}{{ 'abc'|list }}{{ 'abc'|reverse }}{{ 'abc'|first }}{{ 'abc'|last }}{{ 'abc'[1] }}{{ 'abc'[-1] }}{{ 'abc'[::-1] }}{{ 'abcd'[1:3] }}{{ 'abc'[5:] }}",
    "{{ 'ß'|upper }}{{ 'É'|lower }}{{ '\\u2581\\n\\t\\x41\\\\' }}{{ 'a' 'b' }}{{ 'it\\'s' }}",
    "{{ messages[2].content.split('</think>')[-1].lstrip('\n') }}{{ messages[2].content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') }}",
    "{{ 'a' ~ 1 ~ true ~ none ~ [1, 'b'] }}{{ 1 ~ 2 * 3 }}",
    # JSON.
    "{{ {'b': 1, 'a': [1.5, none, true, 'é\"\\n<&>\\'']}|tojson }}{{ 'x'|tojson }}{{ 1|tojson }}{{ none|tojson }}{{ []|tojson }}{{ {}|tojson }}{{ (1, 2)|tojson }}",
    "{{ {'b': 1, 'a': [1, {}], 'c': []}|tojson(indent=2) }}{{ [1]|tojson(indent=0) }}{{ [[]]|tojson(indent=4) }}",
    "{{ {'b': 1, 'a': 'é'}|tojson(sort_keys=true) }}{{ {'b': 1, 'a': 2}|tojson(separators=(',', ':')) }}{{ 'é🙂\x7f'|tojson(ensure_ascii=true) }}{{ 'é'|tojson(true) }}{{ 'é'|tojson(ensure_ascii=False) }}",
    "{{ [1, 2]|tojson(indent=2, separators=(', ', ' = ')) }}{{ {1: 2, none: 3, true: 4}|tojson }}{{ [1e16, 1e-5, 0.5]|tojson }}{{ messages[0]|tojson(indent=4) }}",
    "{{ '\\u2028\\b\\f\\x01/'|tojson }}",
    "{{ nothing|tojson }}",
    # Lists and mappings.
    "{{ [1, 2, 2].count(2) }}{{ [1, 2].index(2) }}{{ (1, 2).index(1) }}",
    "{{ [1].index(3) }}",
    "{{ [1, 2, 3, 4, 5]|batch(2)|list }}{{ [1, 2, 3]|batch(2, 0)|list }}{% for row in [1, 2, 3]|batch(2) %}{{ row|join('+') }};{% endfor %}",
    "{% for role, group in messages|groupby('role') %}{{ role }}:{{ group|length }} {% endfor %}{% for g in messages|groupby(attribute='role') %}{{ g.grouper }}{{ g.list|length }}{{ g[0] }}{% endfor %}",
    "{{ dict(a=1, b='x') }}{{ dict({'a': 1}, b=2) }}{{ dict() }}{{ dict(messages[0], content='x').content }}{{ dict(a=1).items()|list }}",
    "{{ [3, 1, 2]|sort }}{{ [3, 1, 2]|sort(reverse=true) }}{{ messages|sort(attribute='role')|map(attribute='role')|list }}{{ [1, 1, 2]|unique|list }}{{ [1, 2]|sum }}{{ [1, 2]|max }}{{ ['b', 'A']|sort }}",
    "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}{{ messages|rejectattr('role', 'in', ['user', 'system'])|map(attribute='role')|list }}{{ messages|selectattr('content')|list|length }}{{ [1, none, 'a']|select('string')|list }}{{ ['a', 'b']|map('upper')|join }}",
    "{{ messages[0]|attr('role') }}{{ messages[0].get('role') }}{{ messages[0].get('x', 'd') }}{{ messages[0].get('x') }}{{ messages[0]['role'] }}{{ messages[0].x }}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{% for k, v in messages[0]|items %}{{ k }}{% endfor %}{% for k, v in messages[0]|dictsort %}{{ k }}{% endfor %}{{ messages[0].keys()|list }}{{ messages[0].values()|list }}{% for k in messages[0] %}{{ k }}{% endfor %}",
    "{{ [1, 'a', 2.5, none, true, 'it\\'s'] }}{{ {'a': 1, 'b': [(1,), ()]} }}{{ (1, 2) }}{{ messages[0] }}",
    "{{ ([1] + [2]) }}{{ [1, 2, 3][1:] }}{{ [1, 2, 3][::-1] }}{{ (1, 2) + (3,) }}{{ [[1, 2], [3]]|sum(start=[]) }}{{ messages[-1].role }}{{ messages[1:3]|length }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = (1, 2) %}{{ c }}{% set d = {'x': (1, [2])} %}{{ d }}{{ d.x[1][0] }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{% set ns.c = ns.a + ns.b %}{{ ns.a }}{{ ns.b }}{{ ns.c }}{% set ns.l = [] %}{% for m in messages %}{% set ns.l = ns.l + [m.role] %}{% endfor %}{{ ns.l|join(',') }}",
    # Blocks.
    "{% raw %}{{ x }} {% if %} {# no #}{% endraw %}!{%- raw -%}  {{ y }}  {%- endraw -%}  ?",
    "{% with a = 1, b = [1, 2] %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}{% with %}{% set c = 3 %}{{ c }}{% endwith %}{{ c is defined }}",
    "{% with ns = namespace(n=1) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{% endwith %}",
    "{% filter upper %}abc{{ 'd' }}{% endfilter %}{% filter trim|replace('a', 'b') %}  aa {% endfilter %}",
    "{% macro f(x) %}[{{ caller() }}{{ x }}]{% endmacro %}{% call f(1) %}y{% endcall %}{% macro g() %}{{ caller(1, 'b') }}{% endmacro %}{% call(n, s) g() %}{{ n }}{{ s }}{% endcall %}",
    "{% macro f(x, y='d', z=none) %}{{ x }}{{ y }}{{ z }}{% endmacro %}{{ f(1) }}{{ f(1, z=2) }}{{ f(*[1, 2, 3]) }}{{ f(1, **{'y': 5}) }}{{ f(*messages[:2]) }}",
    "{% for x in [1, 1, 2] %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x) }}{{ loop.index }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.length }}{% endfor %}",
    "{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% else %}none{% endfor %}{% for x in [] %}{% else %}none{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.role }}{% endfor %}{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}{% for x in [[1, [2]]] recursive %}{{ x if x is number else loop(x) }}{% endfor %}",
    "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}\n{%- for m in messages -%}\n  {%- generation -%}\n {{ m.role }}\n {%- endgeneration %}\n{%- endfor %}",
    "{% set x %}  a{{ 1 }} {% endset %}[{{ x }}]{% set y | trim | upper %}  b {% endset %}[{{ y }}]{% set z | list %}ab{% endset %}{{ z }}",
    "{% set a = 1 %}{% for i in [1, 2] %}{% set a = a + i %}{{ a }}{% endfor %}{{ a }}{% if true %}{% set a = 9 %}{% endif %}{{ a }}",
    "{{ 'a' if false }}|{{ 'a' if true else 'b' }}|{{ ('a' if false else 'b') + 'c' }}{{ 'x' or 'y' }}{{ '' or 'y' }}{{ none and 1 }}{{ not '' }}",
    "{{ 1 < 2 < 3 }}{{ 1 == 1.0 }}{{ 'a' < 'b' }}{{ none == false }}{{ [] == () }}{{ 1 != 2 and 2 >= 2 or false }}{{ true == 1 }}{{ true + 1 }}",
    # Undefined values, and errors.
    "{{ nothing|trim }}{{ nothing|e }}{{ nothing|center(1) }}{{ 5|trim }}{{ 5|center(3) }}",
    "{{ nothing }}|{{ nothing|length }}|{{ nothing ~ 'a' }}|{% for x in nothing %}{% endfor %}{{ 'a' in nothing }}{{ nothing == none }}{{ not nothing }}{{ nothing|upper }}{{ nothing|list }}",
    "{{ nothing.x }}",
    "{{ 'a' + nothing }}",
    "{{ messages[9].role }}",
    "{{ 'a' + 1 }}",
    "{{ raise_exception('no') }}",
    "{% do messages %}x",
    "{{ messages|nosuchfilter }}",
    "{{ 'a'.nosuchmethod() }}",
    "{{ 1 is nosuchtest }}",
]
# What Jinja renders and nemoflash refuses, with the word that its error names.
REFUSED = [
    ("\n{{ 'abc def'|wordcount }}", "wordcount"),
    ("{{ 'abcdefghijkl'|truncate(5) }}", "truncate"),
    ("{{ '<b>x</b>'|striptags }}", "striptags"),
    ("\n\n{{ 'a b c d'|wordwrap(3) }}", "wordwrap"),
    ("{{ 'a b'|urlencode }}", "urlencode"),
    ("{{ 1000|filesizeformat }}", "filesizeformat"),
    ("{{ [1, 'a']|pprint }}", "pprint"),
    ("{{ {'a': 1}|xmlattr }}", "xmlattr"),
    ("{{ [1, 2, 3]|slice(2)|list }}", "slice"),
    ("{% set j = joiner(', ') %}{{ j() }}{{ j() }}", "joiner"),
    ("{% set c = cycler('a', 'b') %}{{ c.next() }}", "cycler"),
    ("\n{% autoescape true %}{{ '<' }}{% endautoescape %}", "autoescape"),
    ("{% block a %}x{% endblock %}", "block"),
    ("{{ 'ABß'.casefold() }}", "casefold"),
    ("{{ '%c' % 97 }}", "`c`"),
    ("{{ '%(a)5c'|format(a=97) }}", "`c`"),
    ("{{ '{:c}'.format(97) }}", "`c`"),
    ("{{ 'a'.encode('utf-8')|length }}", "encode"),
    ("{{ 'a\tb'.expandtabs(2) }}", "expandtabs"),
    ("{% macro f() %}{{ varargs|length }}{% endmacro %}{{ f(1, 2) }}", "too many arguments"),
    ("\n{{ [1] * 2 }}", "`*`"),
    ("{{ 2 * (1, 2) }}", "`*`"),
    ("{% set f = '%s' %}{{ f % 'a' }}", "%"),
]


def text(template):
    try:
        return jinja.from_string(template).render(messages=MESSAGES, **VARIABLES)
    except Exception:
        return None


cases = [{"template": template, "text": text(template)} for template in CONSTRUCTS]
for template, word in REFUSED:
    assert text(template) is not None, template
    cases.append({"template": template, "text": text(template), "refused": word})
table = {"messages": [[m["role"], m["content"]] for m in MESSAGES], "cases": cases}
out = pathlib.Path(__file__).parent / "constructs.json"
out.write_text(json.dumps(table, ensure_ascii=False, indent=0) + "\n")
