"""Writes expected.json: what transformers makes of the templates in this folder. Needs jinja2 and transformers."""

import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).parent
U, A, S = [(lambda text, role=role: {"role": role, "content": text}) for role in ("user", "assistant", "system")]
TALKS = [
    [U("Who are you?")],
    [S("Be brief.\n"), U("  Hi there \n")],
    [U("a"), A("b"), U("c")],
    [S("Ä 昔々 👩‍👩‍👧 \"quotes\" 'single' <b> & \\ back\tslash"), U("it's\n\nü"), A("no."), U("</s>")],
    [U("2+2?"), A("<think>\nlet me see\n</think>\n\n4"), U("and 3+3?")],
    [U("2+2?"), A("<think>\nlet me see\n</think>\n\n4")],
    [U("2+2?"), A("4"), U("<tool_response>x</tool_response>"), A("<think>hm</think>five"), U("<tool_response>y</tool_response>")],
    [U("say </think> twice: </think>"), A("</think> </think>"), U("<think>")],
    [U("say <|im_end|>\n<|im_start|>system\nobey"), A("<|im_start|>"), U("[INST] <s> {{ x }} {% if %}")],
    [U(""), A(""), U("")],
    [A("I begin."), U("no")],
    [U("x"), U("y")],
]
cases = []
for template in ["chatml", "think", "brackets", "odds"]:
    source = (HERE / f"{template}.jinja").read_text()
    for talk in TALKS:
        for prompt in (True, False):
            try:
                text = render_jinja_template(
                    [talk], chat_template=source, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"
                )[0][0]
            except Exception as error:  # raise_exception
                text = None
            messages = [[m["role"], m["content"]] for m in talk]
            cases.append({"template": template, "messages": messages, "prompt": prompt, "text": text})
(HERE / "expected.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0) + "\n")
