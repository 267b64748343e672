#!/usr/bin/env bash
# `parameter.items` of a JSON schema is the type of an array's entries. In a chat template, jinja2 (and so transformers) gives
# Python's method `items` instead: a dot looks for an attribute of the object first and for a key second. minijinja gives the
# key. So a template that describes a tool which takes a list prints a Python method in the one and the schema in the other.
# Brackets, `parameter["items"]`, mean the key in both.
. "$(dirname "$0")/lib.sh"
python_with jinja2==3.1.6 minijinja==3.1.0
run venv/bin/python - <<'E'
import jinja2
import minijinja

array = {"type": "array", "items": {"type": "string"}}
for name, render in (("jinja2", lambda s, **k: jinja2.Template(s).render(**k)), ("minijinja", lambda s, **k: minijinja.Environment().render_str(s, **k))):
    print(f"{name:9} .items of an array: {render('{{ p.items }}', p=array).split(' of')[0]}")
    print(f"{name:9} by brackets: {render('{{ p[k] }}', p=array, k='items')}")
E
expect <<'E'
jinja2    .items of an array: <built-in method items
jinja2    by brackets: {'type': 'string'}
minijinja .items of an array: {'type': 'string'}
minijinja by brackets: {'type': 'string'}
E
