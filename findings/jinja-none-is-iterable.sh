#!/usr/bin/env bash
# `none is iterable` is false in jinja2 and true in minijinja; `"text" is sequence` is true in jinja2 and false in minijinja.
# Chat templates ask both: whether there are tools, and whether a message is text or a list of parts. So a template that
# takes the right way in the one renderer takes the other way in the other, and neither raises an error.
. "$(dirname "$0")/lib.sh"
python_with jinja2==3.1.6 minijinja==3.1.0
run venv/bin/python - <<'E'
import jinja2
import minijinja

for source in ("{{ none is iterable }}", "{{ 'text' is sequence }}", "{% if tools is iterable %}has tools{% else %}no tools{% endif %}"):
    first = jinja2.Template(source).render(tools=None)
    second = minijinja.Environment().render_str(source, tools=None)
    print(f"{source[:30]:30} jinja2 {first}, minijinja {second}")
E
expect <<'E'
{{ none is iterable }}         jinja2 False, minijinja True
{{ 'text' is sequence }}       jinja2 True, minijinja False
{% if tools is iterable %}has  jinja2 no tools, minijinja has tools
E
