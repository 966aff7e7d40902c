"""Small chat templates of our own that use the constructs of the well-known families."""

from schemas.assets import Template
from stages.render.builtin import load

CHATML = Template(
    name="chatml",
    source=load("chatml"),
    variables={"eos_token": "<|im_end|>"},
    control_tokens=("<|im_start|>", "<|im_end|>"),
)

# header tokens, a beginning token glued to the first message, trimmed content
HEADERS = Template(
    name="headers",
    source=(
        "{% for message in messages %}"
        "{% set text = '<|head|>' + message['role'] + '<|/head|>\\n\\n' + message['content'] | trim + '<|eot|>' %}"
        "{% if loop.first %}{% set text = bos_token + text %}{% endif %}{{ text }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\\n\\n' }}{% endif %}"
    ),
    variables={"bos_token": "<|begin|>", "eos_token": "<|eot|>"},
    control_tokens=("<|begin|>", "<|head|>", "<|/head|>", "<|eot|>"),
)

# no generation prompt, a leading and a closing space, the system prompt merged into the first question
INSTRUCTIONS = Template(
    name="instructions",
    source=(
        "{%- if messages[0].role == 'system' -%}"
        "{%- set system, rest = messages[0].content, messages[1:] -%}"
        "{%- else -%}{%- set system, rest = none, messages -%}{%- endif -%}"
        "{%- for message in rest -%}"
        "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}"
        "{{ raise_exception('roles must alternate') }}{%- endif -%}"
        "{%- set text = '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' ~ message.content "
        "if loop.first and system is not none else message.content -%}"
        "{%- if message.role == 'user' -%}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
        "{%- else -%}{{ ' ' + text.strip() + ' ' + eos_token }}{%- endif -%}{%- endfor -%}"
    ),
    variables={"bos_token": "<s>", "eos_token": "</s>"},
    control_tokens=("<s>", "</s>"),
)

# a renamed role, content as text or as parts
TURNS = Template(
    name="turns",
    source=(
        "{{ bos_token }}{%- for message in messages -%}"
        "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
        "{{ '<turn>' + role + '\\n' }}"
        "{%- if message['content'] is string -%}{{ message['content'] | trim }}"
        "{%- else -%}{%- for part in message['content'] -%}{{ part['text'] }}{%- endfor -%}{%- endif -%}"
        "{{ '</turn>\\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<turn>model\\n' }}{%- endif -%}"
    ),
    variables={"bos_token": "<bos>", "eos_token": "<eos>"},
    control_tokens=("<bos>", "<eos>", "<turn>", "</turn>"),
)

# thinking split out of the content, a backwards loop with a namespace, arguments as text or as an object
THINKING = Template(
    name="thinking",
    source=(
        "{%- set ns = namespace(last=messages|length - 1, open=true) %}"
        "{%- for message in messages[::-1] %}"
        "{%- if ns.open and message.role == 'user' and not message.content.startswith('<result>') %}"
        "{%- set ns.open = false %}{%- set ns.last = messages|length - 1 - loop.index0 %}{%- endif %}{%- endfor %}"
        "{%- for message in messages %}"
        "{%- if message.role == 'assistant' %}"
        "{%- set content = message.content %}{%- set thought = '' %}"
        "{%- if message.reasoning_content is defined and message.reasoning_content is not none %}"
        "{%- set thought = message.reasoning_content %}"
        "{%- elif '</think>' in content %}"
        "{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
        "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
        "{{- '<|im_start|>assistant\\n' }}"
        "{%- if loop.index0 > ns.last and (loop.last or thought) %}"
        "{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}"
        "{%- else %}{{- content }}{%- endif %}"
        "{%- for call in message.tool_calls or [] %}"
        '{{- \'\\n<call>\\n{"name": "\' ~ call.function.name ~ \'", "arguments": \' }}'
        "{%- if call.function.arguments is string %}{{- call.function.arguments }}"
        "{%- else %}{{- call.function.arguments | tojson }}{%- endif %}{{- '}\\n</call>' }}{%- endfor %}"
        "{{- '<|im_end|>\\n' }}"
        "{%- elif message.role == 'tool' %}"
        "{{- '<|im_start|>user\\n<result>\\n' + message.content + '\\n</result><|im_end|>\\n' }}"
        "{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    ),
    variables={"eos_token": "<|im_end|>"},
    control_tokens=("<|im_start|>", "<|im_end|>"),
)

# macros, set blocks, and calls that are written only where the content is none
MACROS = Template(
    name="macros",
    source=(
        "{%- macro call(tool) -%}<|call|>{{ tool.function.name }}\n{{ tool.function.arguments }}<|/call|>{%- endmacro -%}"
        "{%- set ns = namespace(system='') -%}"
        "{%- for message in messages if message.role == 'system' -%}"
        "{%- set ns.system = ns.system + message.content -%}{%- endfor -%}"
        "{{ bos_token }}{{ ns.system }}"
        "{%- for message in messages -%}"
        "{%- if message.role == 'user' -%}{{ '<|User|>' + message.content }}"
        "{%- elif message.role == 'assistant' and message.content is none -%}"
        "<|Assistant|>{% for tool in message.tool_calls %}{{ call(tool) }}{% endfor %}{{ eos_token }}"
        "{%- elif message.role == 'assistant' -%}"
        "{%- set body %}{% generation %}{{ message.content }}{% endgeneration %}{% endset -%}"
        "<|Assistant|>{{ body }}{{ eos_token }}"
        "{%- elif message.role == 'tool' -%}<|Result|>{{ message.content }}{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}<|Assistant|>{%- endif -%}"
    ),
    variables={"bos_token": "<|bos|>", "eos_token": "<|eos|>"},
    control_tokens=("<|bos|>", "<|eos|>", "<|User|>", "<|Assistant|>", "<|Result|>"),
)

# tools beside the last question, calls as JSON cut and glued, no header before the assistant
BRACKETS = Template(
    name="brackets",
    source=(
        "{%- set questions = messages | selectattr('role', 'equalto', 'user') | list %}"
        "{{- bos_token }}"
        "{%- for message in messages %}"
        "{%- if message.role == 'user' %}"
        "{%- if tools is not none and message == questions[-1] %}"
        "{{- '[TOOLS]' + tools | tojson + '[/TOOLS]' }}{%- endif %}"
        "{{- '[INST]' + message.content + '[/INST]' }}"
        "{%- elif message.tool_calls is defined %}"
        "{{- '[CALLS][' }}{%- for call in message.tool_calls %}"
        "{{- (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' }}"
        "{{- ']' + eos_token if loop.last else ', ' }}{%- endfor %}"
        "{%- elif message.role == 'tool' %}"
        "{{- '[RESULT]{\"content\": ' + message.content | string + ', \"id\": \"' + message.tool_call_id + '\"}[/RESULT]' }}"
        "{%- elif message.role == 'assistant' %}{{- message.content + eos_token }}"
        "{%- else %}{{- message.content + '\\n' }}{%- endif %}{%- endfor %}"
    ),
    variables={"bos_token": "<s>", "eos_token": "</s>"},
    control_tokens=("<s>", "</s>", "[INST]", "[/INST]", "[TOOLS]", "[/TOOLS]", "[CALLS]", "[RESULT]", "[/RESULT]"),
)

ALL = (CHATML, HEADERS, INSTRUCTIONS, TURNS, THINKING, MACROS, BRACKETS)
