"""What a reply asks for, in all the shapes that models write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_agent.blocks import find_blocks
from kernel_agent.drafts import drafts_in
from kernel_agent.reply import Answer, RunCode, Unusable, read_reply
from kernel_agent.steps import Reply
from tests.examples import examples

CODE = "rain = [3, 1, 2]\nprint(max(rain))"


def read(text: str, finish_reason: str | None = "stop") -> RunCode | Answer | Unusable:
    return read_reply(Reply(text, finish_reason=finish_reason))


def call(name: str, **arguments: str) -> str:
    return json.dumps({"name": name, "arguments": arguments})


RUNS_CODE = {
    "python fence": f"I look.\n\n```python\n{CODE}\n```",
    "py fence": f"```py\n{CODE}\n```",
    "python3 fence": f"```python3\n{CODE}\n```",
    "python3.11 fence": f"```python3.11\n{CODE}\n```",
    "Python fence": f"```Python\n{CODE}\n```",
    "space before the label": f"``` python\n{CODE}\n```",
    "pandoc attribute": f"```{{.python}}\n{CODE}\n```",
    "title attribute": f'```python title="rain.py"\n{CODE}\n```',
    "cmd attribute": f"```python {{cmd}}\n{CODE}\n```",
    "quarto attribute": f"```{{python}}\n{CODE}\n```",
    "file name after a colon": f"```python:rain.py\n{CODE}\n```",
    "bare fence": f"```\n{CODE}\n```",
    "bare fence never closed": f"```\n{CODE}",
    "tilde fence": f"~~~python\n{CODE}\n~~~",
    "bare tilde fence": f"~~~\n{CODE}\n~~~",
    "four backticks": f"````python\n{CODE}\n````",
    "four backticks, three to close": f"````python\n{CODE}\n```",
    "ipython fence": f"```ipython\n{CODE}\n```",
    "tool_code fence": f"```tool_code\n{CODE}\n```",
    "fence never closed": f"Now.\n```python\n{CODE}",
    "fence never closed, then an output": f"```python\n{CODE}\nObservation: 3",
    "fence closed by a tag": f"```python\n{CODE}\n</code>",
    "fence closed by end_code": f"```python\n{CODE}\n<end_code>",
    "fence closed, then end_code": f"```python\n{CODE}\n```<end_code>",
    "fence closed on a code line": f"```python\n{CODE}```\nThat is it.",
    "fence closed twice": f"```python\n{CODE}\n```\n```",
    "fence opened twice": f"```python\n```python\n{CODE}\n```\n```",
    "language on the line after the fence": f"```\npython\n{CODE}\n```",
    "fence after words and code on the line": f"Of `rain`: ```python\n{CODE}\n```",
    "fence after words on the line": f"My code: ```python\n{CODE}\n```",
    "fence in a list": "1. Look:\n\n   ```python\n   rain = [3, 1, 2]\n   print(max(rain))\n   ```",
    "fence on a list's line": "- ```python\n  rain = [3, 1, 2]\n  print(max(rain))\n  ```",
    "code indented more than its fence": "```python\n  rain = [3, 1, 2]\n  print(max(rain))\n```",
    "code on the fence's line": "```python rain = [3, 1, 2]\nprint(max(rain))\n```",
    "CRLF line ends": f"I look.\r\n```python\r\n{CODE}\r\n```\r\n".replace("2]\n", "2]\r\n"),
    "code tags": f"<code>\n{CODE}\n</code>",
    "CODE tags": f"<CODE>\n{CODE}\n</CODE>",
    "code tags and an attribute": f'<code lang="py">\n{CODE}\n</code>',
    "execute tags": f"Now:\n<execute>\n{CODE}\n</execute>",
    "execute tags after a thought's": f"<thought>I look.</thought> <execute>\n{CODE}\n</execute>",
    "execute tag after words": f"Execute: <execute>\n{CODE}\n</execute>",
    "execute tag before a line of code": "<execute> rain = [3, 1, 2]\nprint(max(rain))\n</execute>",
    "execute tag after words, then an output": f"Run: <execute>\n{CODE}\n</execute>\n"
    "Observation: 3\n<execute>\nboom()\n</execute>",
    "tags inside tags": f"<execute>\n<code>\n{CODE}\n</code>\n</execute>",
    "execute tag never closed": f"<execute>\n{CODE}\n",
    "execute_ipython tags": f"<execute_ipython>\n{CODE}\n</execute_ipython>",
    "python tags": f"<python>\n{CODE}\n</python>",
    "PYTHON brackets": f"[PYTHON]\n{CODE}\n[/PYTHON]",
    "tags around a fence": f"<code>\n```python\n{CODE}\n```\n</code>",
    "tags around a bare fence": f"<execute>\n```\n{CODE}\n```\n</execute>",
    "tag's end on a fence's line": f"<execute>\n```python\n{CODE}```</execute>",
    "tags inside a fence": f"```python\n<code>\n{CODE}\n</code>\n```",
    "code tag in the thought": f"I use <code>max</code> here.\n```python\n{CODE}\n```",
    "code tag on a line of the thought": f"I use\n<code>max</code>\n```python\n{CODE}\n```",
    "tool call": f"<tool_call>\n{call('python', code=CODE)}\n</tool_call>",
    "tool call beside a quoted block": "```python\nboom\n```\n"
    f"<tool_call>{call('python', code=CODE)}</tool_call>",
    "tool call with source": f"<tool_call>{call('python_repl', source=CODE)}</tool_call>",
    "tool call never closed": f"<tool_call>\n{call('execute_code', code=CODE)}",
    "tool call with arguments as text": "<tool_call>"
    + json.dumps({"name": "python", "arguments": json.dumps({"code": CODE})})
    + "</tool_call>",
    "tool call in tags": "<tool_call>\n<function=python>\n<parameter=code>\n"
    f"{CODE}\n</parameter>\n</function>\n</tool_call>",
    "JSON with a thought": json.dumps({"thought": "I look.", "code": CODE}),
    "JSON with raw line ends": '{"code": "' + CODE + '"}',
    "no fence at all": CODE,
    "prompts": "```python\n>>> rain = [3, 1, 2]\n>>> print(max(rain))\n3\n```",
    "prompts without a fence": ">>> rain = [3, 1, 2]\n>>> print(max(rain))\n3",
    "draft, then code": f"<think>\n```python\nboom()\n```\n</think>\n```python\n{CODE}\n```",
    "draft that was never opened": "Maybe\n```python\nboom()\n```\n</think>\n"
    f"```python\n{CODE}\n```",
    "draft closed twice": f"<think>a</think>\n```python\nboom()\n```\n</think>\n"
    f"```python\n{CODE}\n```",
    "closing tag of a draft at the end": f"<think>a</think>\n```python\n{CODE}\n```\n</think>",
    "draft that ends behind code": f"<think>\nI use `max`</think>\n```python\n{CODE}\n```",
    "draft that ends behind a fence": "<think>\n```python\nboom()\n```</think>\n"
    f"```python\n{CODE}\n```",
    "draft, then tags on its line": f"<think>boom()</think> <execute>\n{CODE}\n</execute>",
    "draft of Seed": f"<seed:think>\n```python\nboom()\n```\n</seed:think>\n```python\n{CODE}\n```",
    "draft of Kimi": f"◁think▷\n```python\nboom()\n```\n◁/think▷\n```python\n{CODE}\n```",
    "draft of Gemma": "<|channel>thought\n```python\nboom()\n```\n<channel|>"
    f"```python\n{CODE}\n```",
    "draft of gpt-oss": "<|channel|>analysis<|message|>\n```python\nboom()\n```<|end|>"
    f"<|start|>assistant<|channel|>final<|message|>I look.\n```python\n{CODE}\n```<|return|>",
    "draft of gpt-oss without its tokens": "analysisWe look.\n```python\nboom()\n```\n"
    f"assistantfinalI look.\n```python\n{CODE}\n```",
    "scratchpad tags": f"<scratchpad>boom()</scratchpad>\n```python\n{CODE}\n```",
    "thinking tags": f"<thinking>boom()</thinking>\n```python\n{CODE}\n```",
    "reasoning tags": f"<reasoning>\nboom()\n</reasoning>\n```python\n{CODE}\n```",
    "answer before the code ran": f"```python\n{CODE}\n```\nThe largest is 3.",
    "other languages beside it": f"```bash\nls\n```\n```python\n{CODE}\n```\n```json\n{{}}\n```",
    "fence never closed, then a second turn": f"```python\n{CODE}\n\nHuman: Observation:\n"
    "boom()\n\nAssistant:\n```python\nboom()\n```",
    "fence never closed, then an output and a fence": f"```python\n{CODE}\nOutput:\n```\n3\n```",
    "tag never closed, then an output and a tag": f"<execute>\n{CODE}\nObservation:\n3\n"
    "<execute>\nboom()\n</execute>",
    "output inside the block": f"```python\n{CODE}\nObservation:\n3\n```",
    "no fence, then an output": f"{CODE}\n\nObservation:\n3 is boom()",
    "end token after the fence": f"```python\n{CODE}\n```<|im_end|>",
    "end tokens after an open fence": f"```python\n{CODE}\n</s>\n</s>",
    "tool call in a JSON fence": f"I look.\n```json\n{call('python', code=CODE)}\n```",
    "tool call in a tool_code fence": f"```tool_code\n{call('python', code=CODE)}\n```",
    "tool call of a fence": f"<tool_call>\n```python\n{CODE}\n```\n</tool_call>",
    "tool call in tags, never opened": "I look.\n<function=python>\n<parameter=code>\n"
    f"{CODE}\n</parameter>\n</function>\n</tool_call>",
    "tool call of GLM": "<tool_call>python\n<arg_key>code</arg_key>\n"
    f"<arg_value>{CODE}</arg_value>\n</tool_call>",
    "tool call of MiniMax": '<minimax:tool_call>\n<invoke name="python">\n'
    f'<parameter name="code">{CODE}</parameter>\n</invoke>\n</minimax:tool_call>',
    "tool call of Mistral": f"I look.[TOOL_CALLS][{call('python', code=CODE)}]",
    "tool call of Mistral with a name": f"[TOOL_CALLS]python[ARGS]{json.dumps({'code': CODE})}",
    "tool call of Llama": f"<|python_tag|>{CODE}<|eom_id|>",
    "tool call of Llama in JSON": f"<|python_tag|>{call('python', code=CODE)}",
    "tool call of DeepSeek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
    f"python\n```json\n{json.dumps({'code': CODE})}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "tool call of Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.python:0"
    f"<|tool_call_argument_begin|>{json.dumps({'code': CODE})}"
    "<|tool_call_end|><|tool_calls_section_end|>",
    "tool call of InternLM": f"<|action_start|><|interpreter|>\n{CODE}\n<|action_end|>",
    "tool call of gpt-oss": "<|channel|>analysis<|message|>```python\nboom()\n```<|end|>"
    "<|start|>assistant<|channel|>commentary to=functions.python <|constrain|>json<|message|>"
    f"{json.dumps({'code': CODE})}<|call|>",
    "tool call of gpt-oss in code": f"<|channel|>analysis to=python code<|message|>{CODE}<|call|>",
    "tool call of ReAct": f"Thought: I look.\nAction: python\nAction Input: {CODE}\n"
    "Observation: 3\nFinal Answer: boom()",
    "tool call of ReAct in a fence": f"Action: python\nAction Input:\n```python\n{CODE}\n```",
    "tool call in a list": f"[{call('execute_python', code=CODE)}]",
    "tool call of invoke tags": '<function_calls>\n<invoke name="python">\n'
    f'<parameter name="code">\n{CODE}\n</parameter>\n</invoke>\n</function_calls>',
    "role word in front of JSON": f"Assistant: {json.dumps({'code': CODE})}",
    "a traceback quoted": f"```python\nTraceback (most recent call last):\n  boom()\n```\n"
    f"I mend it:\n```python\n{CODE}\n```".replace("boom()", "f()"),
    "solution beside it": f"<execute>\n{CODE}\n</execute>\n<solution>3</solution>",
    "role word in front": f"Assistant: I look.\n```python\n{CODE}\n```",
}


@pytest.mark.parametrize("text", RUNS_CODE.values(), ids=RUNS_CODE.keys())
def test_code_is_found_in(text: str) -> None:
    action = read(text)
    assert isinstance(action, RunCode), action
    assert action.source == CODE
    assert "boom()" not in action.said


FORTY_FIVE = """
python fence|py fence|python3 fence|python3.11 fence|Python fence|pandoc attribute
title attribute|cmd attribute|quarto attribute|file name after a colon|bare fence
bare fence never closed|tilde fence|bare tilde fence|four backticks|ipython fence|tool_code fence
fence never closed|fence closed by a tag|fence closed by end_code|fence closed, then end_code
fence after words on the line|fence in a list|code indented more than its fence|CRLF line ends
code tags|CODE tags|execute tags|execute tag never closed|execute_ipython tags|python tags
PYTHON brackets|tags around a fence|tags inside a fence|code tag in the thought|tool call
tool call never closed|tool call in tags|JSON with a thought|no fence at all
prompts|draft, then code|draft that was never opened
"""
"""Those of the shapes on which parsers fail most whose code is `CODE`."""


def test_of_the_forty_five_shapes_on_which_parsers_fail_all_are_right() -> None:
    shapes = [
        RUNS_CODE[name] for line in FORTY_FIVE.split("\n") for name in line.split("|") if name
    ]
    made_up = f"```python\n{CODE}\n```\n{MADE_UP['observation']}\n```python\nboom(3)\n```"
    cases = [*((shape, CODE) for shape in (*shapes, made_up))]
    in_strings = "\n".join((LEGAL["backticks in a string"], LEGAL["closing tag in a string"]))
    cases.append((f"```python\n{in_strings}\n```", in_strings))
    right = [text for text, source in cases if getattr(read(text), "source", "") == source]
    assert (len(right), len(set(right)), len(cases)) == (45, 45, 45)


MADE_UP = {
    "observation": "Observation: 3",
    "observation in bold": "**Observation:**\n3",
    "output": "Output:\n```\n3\n```",
    "execution result": "Execution result:\n3",
    "output in Chinese": "输出：\n```\n3\n```",
    "output in German": "**Ausgabe:**\n3",
    "output as a heading in bold": "**Output**\n3",
    "output of the code": "The output of the code is:\n```\n3\n```",
    "numbered observation": "Observation 1: 3",
    "execution result in brackets": "[Execution Result]\n3",
    "turn of Gemma": "<start_of_turn>user\n3",
    "turn of GLM": "<|observation|>\n3",
    "turn of Alpaca": "### Instruction:\nGo on.",
    "output fence": "```output\n3\n```",
    "observation tag": "<observation>\n3\n</observation>",
    "result tag": "<result>3</result>",
    "output of an llm-code tag": "<llm-code-output>\n3\n</llm-code-output>",
    "output in brackets": "[Output]\n3",
    "turn of the user": "User: 3",
    "observation in a turn of the assistant": "Assistant: Observation: 3",
    "turn in brackets": "[/INST] Assistant:",
    "turn in a chat template": "<|im_start|>user\n3",
    "line of variables": "Variables: rain: list 3",
    "word of no output": "(no output)",
    "mark of an error's output": "stderr:\nboom",
    "mark of what was left out": "… 12,345 characters (123 lines) left out here …",
    "figure": "[figure 640×480]",
    "traceback": "Traceback (most recent call last):\n  boom",
    "IPython's prompt": "Out[3]: 3",
    "line of the step": "[step 2 of 20]",
    "tagged block after it": "Output: 3\n<execute>\nboom(3)\n</execute>",
    "tool call after it": f"Output: 3\n<tool_call>{call('python', code='boom(3)')}</tool_call>",
}


@pytest.mark.parametrize("marker", MADE_UP.values(), ids=MADE_UP.keys())
def test_nothing_is_run_or_said_from_a_made_up_output_on(marker: str) -> None:
    before = f"I look.\n\n```python\n{CODE}\n```"
    action = read(f"{before}\n{marker}\n\n```python\nboom(3)\n```\nDone.")
    assert action == RunCode("I look.", CODE, before)


@pytest.mark.parametrize(
    "turn",
    [
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n3",
        "<|im_end|>\n<|im_start|>user\n3",
        "<|user|>\n3",
        "</s>[INST] 3 [/INST]",
        "<end_of_turn>\n<start_of_turn>user\n3",
        "assistant\n\nIt is 3.",
    ],
)
def test_a_turn_that_begins_on_the_line_of_the_closing_fence_ends_the_reply(turn: str) -> None:
    before = f"I look.\n\n```python\n{CODE}\n```"
    action = read(f"{before}{turn}\n\n```python\nboom(3)\n```")
    assert action == RunCode("I look.", CODE, before)


def test_words_of_an_observation_inside_code_cut_nothing() -> None:
    source = 'text = """\nObservation: 3\nUser: none\n"""\nprint(text)'
    assert read(f"```python\n{source}\n```").source == source


@pytest.mark.parametrize(
    "source", ["def f(x):\n    return x\nf(1)", "for i in range(3):\n    i", "a, b = 1, 2\na + b"]
)
def test_code_that_begins_on_the_line_of_the_fence_is_whole(source: str) -> None:
    assert read(f"```python {source}\n```").source == source


def test_blocks_are_joined_to_one_cell_and_prose_to_the_thought() -> None:
    text = "First.\n```python\na = 1\n```\nThen.\n```python\nprint(a)\n```\nIt is 1."
    action = read(text)
    assert action == RunCode("First.\n\nThen.\n\nIt is 1.", "a = 1\n\nprint(a)", text)


def test_further_turns_of_its_own_are_further_blocks() -> None:
    turn = "Assistant:\n<execute>\na = {}\n</execute>\n\n"
    assert read(turn.format(1) + turn.format(2)).source == "a = 1\n\na = 2"


def test_an_answer_before_the_code_has_run_is_no_answer_but_stays_what_was_said() -> None:
    text = f"```python\n{CODE}\n```\nThe final answer is 3."
    assert read(text) == RunCode("The final answer is 3.", CODE, text)


def test_a_second_closing_tag_of_a_draft_does_not_undo_code_that_got_an_output() -> None:
    text = f"<think>a</think>\n```python\n{CODE}\n```\nOutput: 3\n</think>\nThe answer is 3."
    assert read(text).source == CODE


def test_the_tags_of_a_thought_are_left_out_of_it() -> None:
    action = read("<thought>I look.</thought>\n<execute>print(1)</execute>")
    assert action.thought == "I look."


def test_only_tagged_code_is_run_when_a_solution_is_fenced_beside_it() -> None:
    text = "<execute>\nf(1)\n</execute>\n<solution>\n```python\nboom()\n```\n</solution>"
    assert read(text).source == "f(1)"


LEGAL = {
    "line magic": "%matplotlib inline\nimport os",
    "cell magic": "%%time\nsum(range(9))",
    "cell magic in words": "%%writefile a.txt\nIt's a text, no code.",
    "shell": "!ls -l\nfiles = !ls",
    "help": "?len\nlen?",
    "await": "await f()",
    "backticks in a string": 'text = """\n```python\nx\n```\n"""\nprint(text)',
    "an expression": "rain.shape",
    "a lone fence in a string": "text = '''\n```\n'''",
    "tag of a tool call in a string": "print('</tool_call></parameter>')",
    "closing tag in a string": "print('</code>')\nprint(\"<end_code>\")",
    "think tags in a string": "text.split('</think>')",
    "prompts in a docstring": 'def f():\n    """\n    >>> f()\n    1\n    """',
    "a quote in a comment": "x = 1  # it's\ny = '```'",
    "no Python": "s(t) = 300t",
}


@pytest.mark.parametrize("source", LEGAL.values(), ids=LEGAL.keys())
@pytest.mark.parametrize("shape", ["```python\n{}\n```\nSo.", "<execute>\n{}\n</execute>\nSo."])
def test_code_is_passed_on_unchanged(source: str, shape: str) -> None:
    assert read(shape.format(source)).source == source


ANSWERS = [
    "The largest is 3.",
    "Yes.",
    "Paris",
    "42",
    "'rain'",
    "Total: 42",
    "Paris (France)\nOslo (Norway)",
    "sqrt(2)",
    "x = 5",
    "pass",
    "[1, 2, 3]",
    '{"mean": 3.5}',
    '{"code": "FR"}',
    "It prints:\n```text\n3\n```",
    '```json\n{"a": 1}\n```',
    "```sql\nselect 1\n```",
    "````markdown\n```python\nboom()\n```\n````",
    "```markdown\n```python\nboom()\n```\n```",
    "Install it:\n```bash\npip install x\n```\nor\n```bash\nuv add x\n```",
    "```\n[1, 2, 3]\n```",
    "I would use <code>max</code> and `min`.",
    "<think>boom()</think>\nThe largest is 3.",
    "<think>\nI use `max`</think>\nThe largest is 3.",
    "<code>df.head()</code> shows the first rows.",
    "As I said:\n\n> ```python\n> x = 2\n> ```\n\nSo it is 2.",
    "```python\n<<<<<<< SEARCH\nx = 1\n=======\nx = 2\n>>>>>>> REPLACE\n```",
    "```python\n@@ -1,2 +1,2 @@\n-x = 1\n+x = 2\n```",
    "Maybe\n```python\nboom()\n```\n</think>\nThe largest is 3.",
]


@pytest.mark.parametrize("text", ANSWERS)
def test_is_an_answer(text: str) -> None:
    action = read(text)
    assert isinstance(action, Answer), action
    assert action.text
    assert "boom" not in action.said or "markdown" in text


UNUSABLE = {
    "nothing": ("", "stop", "empty"),
    "blanks": (" \n", "stop", "empty"),
    "only a draft": ("<think>\n```python\nboom()\n```\n</think>", "stop", "draft"),
    "a draft never closed": ("<think>\n```python\nboom()\n```", "stop", "draft"),
    "a block cut off": ("```python\nx = 1\n", "length", "cut off"),
    "a second block cut off": ("```python\nx = 1\n```\n```python\ny =", "length", "cut off"),
    "a bare block cut off": ("```\nx = 1", "length", "cut off"),
    "an answer cut off": ("The largest is", "length", "cut off"),
    "a block that is half": ("```python\nprint(", "stop", "never closed"),
    "a half block before another": (
        "```python\nprint(\n```python\ny = 1\n```",
        None,
        "never closed",
    ),
    "a tag that is half": ("<execute>\ndef f(:", "stop", "never closed"),
    "half a tool call": ('<tool_call>{"name": "python", "arguments": {"code": "x', "stop", "JSON"),
    "half a JSON": ('{"thought": "I look", "code": "print(1)', "stop", "JSON"),
    "another tool's call": (
        '<tool_call>{"name": "zoom", "arguments": {}}</tool_call>',
        "stop",
        "run",
    ),
    "a second block that is half": (
        "```python\nx = 1\n```\nThen\n```python File 1, line 7 > 8",
        "stop",
        "never closed",
    ),
    "a function that has only its docstring": (
        '<execute>\ndef f(x):\n    """Double x."""\n\nHuman: Observation:\nWrong.',
        "stop",
        "never closed",
    ),
    "a file that is half": ("```python\n%%writefile a.txt\nIt is", "stop", "never closed"),
    "the start of a second block cut off": ("```python\nx = 1\n```\n``", "length", "cut off"),
    "the start of a second tag cut off": (
        "<execute>\nx = 1\n</execute>\n<exec",
        "length",
        "cut off",
    ),
    "another block cut off": ("```python\nx = 1\n```\n```json\n{", "length", "cut off"),
    "a block that a filter cut": ("```python\nx = 1\n", "content_filter", "cut off"),
    "a fence around it never closed": (
        "````\n```python\nx = 1\n```\nThat is it.",
        "stop",
        "three backticks",
    ),
    "tags of a tool call cut off": (
        "<tool_call>\n<function=python>\n<parameter=code>\nx = 1",
        "stop",
        "tool call",
    ),
    "a call of Mistral's, of another tool": (
        '[TOOL_CALLS][{"name": "zoom", "arguments": {}}]',
        "stop",
        "tool call",
    ),
    "two calls of Kimi's": (
        "<|tool_calls_section_begin|>"
        + 2 * '<|tool_call_begin|>python:0<|tool_call_argument_begin|>{"code": "x = 1"}'
        + "<|tool_calls_section_end|>",
        "stop",
        "tool call",
    ),
    "Llama's code cut off": ("<|python_tag|>x = 1\ny = 2", "length", "cut off"),
    "ReAct's call of another tool": ("Action: search\nAction Input: rain", "stop", "tool call"),
    "a text in a cell that holds fences": (
        "```python\n%%writefile a.md\n# A\n\n```\npip install a\n```\n\nSo.\n```",
        "stop",
        "four backticks",
    ),
    "shell, then its output": ("```bash\nls\n```\nOutput:\n```\na.csv\n```", "stop", "`!ls`"),
    "an empty block": ("```python\n```", "stop", "empty"),
    "a shell block": ("I look.\n```bash\nls\n```", "stop", "`!ls`"),
    "a shell tag": ("<execute_bash>\nls\n</execute_bash>", "stop", "`!ls`"),
    "an output of its own": ("Observation: 3", "stop", "yourself"),
}


@pytest.mark.parametrize(("text", "finish", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_is_unusable_and_says_why(text: str, finish: str | None, reason: str) -> None:
    action = read(text, finish)
    assert isinstance(action, Unusable), action
    assert reason in action.reason
    assert action.said


def test_a_fence_of_four_holds_fences_of_three() -> None:
    source = "%%writefile a.md\n# A\n\n```python\nprint(1)\n```\n\nSo."
    assert read(f"I write it.\n````python\n{source}\n````\nDone.").source == source


def test_a_reply_cut_off_after_its_closed_code_is_run() -> None:
    assert read("```python\nx = 1\n```\nNow I", "length").source == "x = 1"


def test_a_reply_cut_off_in_what_it_made_up_is_run() -> None:
    text = "```python\nx = 1\n```\nObservation: 1\n```python\ny ="
    assert read(text, "length").source == "x = 1"


@pytest.mark.parametrize("label", ["r", "R", "{r}", ""])
def test_code_in_the_kernels_own_language_is_run(label: str) -> None:
    text = f"```python\nboom()\n```\n```{label}\nx <- c(1, 2)\nmean(x)\n```"
    action = read_reply(Reply(text), language="r")
    assert isinstance(action, RunCode)
    assert action.source == "x <- c(1, 2)\nmean(x)"


@pytest.mark.parametrize("text", ["", "```python\nprint(1)\n```", "```bash\nls\n```", "```r\n```"])
def test_what_cannot_be_used_is_mended_in_the_kernels_own_language(text: str) -> None:
    action = read_reply(Reply(text), language="r")
    assert isinstance(action, Unusable)
    assert "```r" in action.reason
    assert "```python" not in action.reason


def test_an_open_block_of_another_language_is_not_run_for_its_end_cannot_be_told() -> None:
    action = read_reply(Reply("```r\nx <- c(1, 2)"), language="r")
    assert isinstance(action, Unusable)
    assert "```r" in action.reason


@pytest.mark.parametrize("label", ["bash", "sh", "shell"])
def test_shell_code_is_run_by_a_shell(label: str) -> None:
    action = read_reply(Reply(f"I look.\n```{label}\nls -l\n```"), language="bash")
    assert isinstance(action, RunCode)
    assert action.source == "ls -l"


WORDS = (
    "``` ```python ~~~ </code> <code> </execute> <end_code> <think> </think> Observation: User: x "
    '</tool_call> </parameter> {"code":'
)
PIECES = st.sampled_from([*WORDS.split(), "'", '"', "\\", "# ", ">>> ", "\n", "\n\n", "    "])
STRINGS = st.lists(PIECES, max_size=8).map("".join)


def literal(value: str, style: int) -> str:
    if style == 0 or value.endswith(("\\", '"')) or '"""' in value or "\\" in value:
        return repr(value)
    return f'"""{value}"""'


STATEMENTS = st.builds(
    lambda name, value, style: f"{name} = {literal(value, style)}",
    st.sampled_from(["a", "b", "total"]),
    STRINGS,
    st.integers(0, 1),
)
SOURCES = st.lists(
    st.one_of(
        STATEMENTS, st.just("print(total)"), st.just("if a:\n    b = 1  # it's"), st.just("")
    ),
    min_size=1,
    max_size=6,
).map(lambda lines: "\n".join(["import math", *lines, "print(1)"]))
SHAPES = [
    "```python\n{}\n```",
    "I look.\n\n```py\n{}\n```\nDone.",
    "~~~python\n{}\n~~~",
    "````python\n{}\n````",
    "```\n{}\n```",
    "<code>\n{}\n</code>",
    "<execute>\n{}\n</execute>",
    "<execute>\n```python\n{}\n```\n</execute>",
    "<think>hm</think>\n```python\n{}\n```",
    "```python\n{}\n```\nObservation: 1\n```python\nboom()\n```",
]


@given(source=SOURCES, shape=st.sampled_from(SHAPES))
@examples(300)
def test_any_source_in_any_shape_comes_out_unchanged(source: str, shape: str) -> None:
    action = read(shape.format(source))
    assert isinstance(action, RunCode), action
    assert action.source == source


CALLS = {
    "Mistral": lambda source: f"[TOOL_CALLS]python[ARGS]{json.dumps({'code': source})}",
    "Kimi": lambda source: (
        "<|tool_call_begin|>functions.python:0<|tool_call_argument_begin|>"
        f"{json.dumps({'code': source})}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "Llama": lambda source: f"<|python_tag|>{call('python', code=source)}<|eom_id|>",
    "JSON": lambda source: json.dumps({"thought": "I look.", "code": source}),
    "tool call": lambda source: f"<tool_call>\n{call('python', code=source)}\n</tool_call>",
    "list": lambda source: f"[{call('run_code', source=source)}]",
    "JSON fence": lambda source: f"```json\n{call('python', code=source)}\n```",
}


@given(source=SOURCES, shape=st.sampled_from(sorted(CALLS)))
@examples(100)
def test_any_source_in_json_comes_out_unchanged(source: str, shape: str) -> None:
    action = read(CALLS[shape](source))
    assert isinstance(action, RunCode), action
    assert action.source == source


def mutated(text: str, cuts: list[tuple[float, int]]) -> str:
    for place, length in cuts:
        at = int(place * len(text))
        text = text[:at] + text[at + length :]
    return text


CUTS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 12)), min_size=1, max_size=3
)


@given(source=SOURCES, shape=st.sampled_from(SHAPES), cuts=CUTS)
@examples(300)
def test_what_is_run_of_a_damaged_reply_is_what_the_model_wrote_in_one_piece(
    source: str, shape: str, cuts: list[tuple[float, int]]
) -> None:
    text = mutated(shape.format(source), cuts)
    action = read(text)
    if not isinstance(action, RunCode) or ">>>" in text:
        return
    written = [block.source for block in find_blocks(text) if block.kind in {"own", "bare"}]
    assert all(source in text for source in written)
    assert action.source in text or action.source in "\n\n".join(filter(str.strip, written))


@given(source=SOURCES, shape=st.sampled_from(SHAPES), end=st.floats(0, 1, exclude_max=True))
@examples(300)
def test_a_reply_that_was_cut_off_runs_its_whole_block_or_nothing(
    source: str, shape: str, end: float
) -> None:
    text = shape.format(source)
    action = read(text[: int(end * len(text))], "length")
    if isinstance(action, RunCode):
        assert action.source == source


@given(text=st.lists(st.one_of(PIECES, st.just("```\n"), st.text(max_size=5))).map("".join))
@examples(200)
def test_any_text_is_read_and_says_something(text: str) -> None:
    action = read(text)
    assert action.said
    assert not isinstance(action, RunCode) or action.source.strip()


HUGE = {
    "backticks": "`" * 200_000,
    "backticks and text": "`" * 200_000 + "x",
    "angle brackets": "<" * 200_000,
    "fences": "```\n" * 50_000,
    "python fences": "```python\n" * 20_000,
    "nested fences": "```\n```x\n" * 22_000,
    "quotes": "```python\n" + '"""' * 66_000,
    "quotes in fences": '```python\n"""\n' * 14_000,
    "tags": "<code>\n" * 28_000,
    "drafts": "<think>" * 28_000,
    "draft lines": "<think>\n</think>\n```python\nx='</think>'\n```\n" * 4_000,
    "brackets": "(" * 200_000,
    "braces": '{"code":' * 25_000,
    "blanks": " " * 200_000 + "x",
    "blanks in code": "```python\nx" + " " * 200_000 + "(\n```",
    "indent in code": "```python\n" + " " * 200_000 + "(\n```\n" + " " * 200_000 + "x",
    "calls": "<tool_call><function=python>" * 7_000,
    "functions": "<function=python>\n" * 11_000,
    "calls of tokens": "<|tool_call_begin|>" * 10_000,
    "headers of calls": "<|channel|>x to=" * 12_000,
    "ends of drafts": "<|end|><|start|>assistant" * 8_000,
    "headers of drafts": "<|channel|>analysis<|message|><|end|>" * 6_000,
    "output words": "the output of the " * 11_000,
    "names of calls": "<tool_call>" + "functions." * 20_000,
    "tokens of calls": "<|python_tag|>" + "<|a|>" * 40_000,
    "tokens in a call": "<tool_call>x" + "<|a|>" * 40_000 + "x",
    "blanks in a call": "<tool_call>x" + " " * 200_000 + "x",
    "labels": "```python\n" + "py\n" * 60_000,
    "words of ReAct": "Action: a\nAction Input:" * 9_000,
    "quotes in prose": "`a` " * 50_000 + "```",
    "turns": "```python\nx\n```<|user|>\n" * 8_000,
    "four backticks": "````python\n" * 18_000,
    "cells of text": "```python\n%%bash\n```\n" * 9_000,
    "lines": "\n" * 200_000 + "x",
}


@pytest.mark.slow
@pytest.mark.timeout(20)  # where reading took more than linear time, it would be hours
@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE.keys())
def test_a_huge_reply_is_read_to_its_end(text: str) -> None:
    assert read(text).said


@pytest.mark.parametrize(
    ("text", "drafts"),
    [
        ("It is 3.", []),
        ("<think>hm</think>\nIt is 3.", ["hm"]),
        ("hm\n</think>\nIt is 3.", ["hm"]),
        ("<think>\nhm\n\nwell", ["hm\n\nwell"]),
        ("<think>a</think>\nSo.\n<reasoning>b</reasoning>", ["a", "b"]),
        ("```python\nx = '</think>'\n```", []),
    ],
)
def test_what_is_thought_aloud_in_the_text_can_be_told(text: str, drafts: list[str]) -> None:
    assert drafts_in(text) == drafts
