"""Chat templates that try to get out, to fill the memory or never to end, and such as do not compile."""

BAIT = "SENTINEL"
"""In a template: the path of a file that it must not make."""

GROW = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}"
NESTED = GROW + "{% set ns.y = [ns.y, ns.y] %}{% endfor %}"
TUPLES = (
    "{% set ns = namespace(x=(1,), y=(1,)) %}{% for i in range(40) %}"
    "{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}"
)
LONG = "{% set x = 'a' * 50000 %}"
MANY = LONG + "{% for i in range(99999) %}"
LONG_MESSAGE = "{% set x = messages[0].content * 5000 %}"
PATCHWORK = "{% set x = ('b' ~ messages[0].content[:1]) * 20000 %}"
BODY = "{% if i %}{% endif %}" * 4_000

ESCAPES = {
    "classes above a string": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes above the messages": "{{ messages.__class__.__base__.__subclasses__() }}",
    "class by item": "{{ messages['__class__']['__base__'] }}",
    "class by a name glued together": "{{ messages[('_' * 2) ~ 'class' ~ ('_' * 2)] }}",
    "class by an escaped name": "{{ messages | attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "class by the filter attr": "{{ messages | attr('__class__') }}{{ (messages | attr('__class__')).x }}",
    "class by the filter map": "{{ (messages | map(attribute='__class__') | list)[0].mro() }}",
    "class by a dotted map": "{{ (messages | map(attribute='content.__class__') | list)[0].mro() }}",
    "class by groupby": "{{ (messages | groupby('__class__'))[0].grouper.mro() }}",
    "class by sum": "{{ messages | sum(attribute='__class__') }}",
    "class by sort": "{{ messages | sort(attribute='__class__') | first | attr('x') }}",
    "class by join": "{{ messages | join(attribute='__class__') }}",
    "class by max": "{{ (messages | map(attribute='__class__') | max).mro() }}",
    "class by format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "class by a nested format": "{{ '{0[0].__class__.__mro__}'.format(messages) }}",
    "class by a nested width": "{{ '{0:{1.__class__}}'.format('', messages) }}",
    "class by format_map": "{{ '{m.__class__.__mro__}'.format_map({'m': messages}) }}",
    "class by a stored format": "{% set f = '{0.__class__.__mro__}'.format %}{{ f(messages) }}",
    "class by attr format": "{{ ('{0.__class__.__mro__}' | attr('format'))(messages) }}",
    "class by mapped format": "{{ (['{0.__class__}'] | map(attribute='format') | first)(messages) }}",
    "class by a safe string's format": "{{ ('{0.__class__.__mro__}' | safe).format(messages) }}",
    "class by a percent format": "{{ '%(x.__class__)s' % {'x': messages} }}",
    "globals of a method": "{{ messages[1].content.__init__.__globals__ }}",
    "globals of a tracked method": "{{ messages[1].content.split.__func__.__globals__ }}",
    "globals of raise_exception": "{{ raise_exception.__globals__ }}",
    "globals of strftime_now": f"{{{{ strftime_now.__globals__['__builtins__']['open']('{BAIT}', 'w') }}}}",
    "globals of namespace": f"{{{{ namespace.__init__.__globals__.os.system('touch {BAIT}') }}}}",
    "globals of lipsum": f"{{{{ lipsum.__globals__.os.system('touch {BAIT}') }}}}",
    "globals of cycler": f"{{{{ cycler.__init__.__globals__.os.popen('touch {BAIT}').read() }}}}",
    "globals of joiner": f"{{{{ joiner.__init__.__globals__.os.popen('touch {BAIT}').read() }}}}",
    "globals of self": f"{{{{ self.__init__.__globals__.__builtins__.open('{BAIT}', 'w') }}}}",
    "globals of a macro": "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}{{ m._func.__globals__ }}",
    "globals of a caller": "{% macro m() %}{{ caller.__class__.__mro__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "globals of the loop": "{% for m in messages %}{{ loop.__init__.__globals__ }}{{ loop._iterator }}{% endfor %}",
    "closure of a wrapped method": "{{ messages[1].content.join.__closure__ }}",
    "frame of a generator": "{{ (messages | map(attribute='role')).gi_frame.f_globals }}",
    "code of a generator": "{{ (messages | map(attribute='role')).gi_code.co_consts }}",
    "origin of a text": "{{ messages[1].content._spans[0] }}",
    "self of a method": "{{ messages[1].content.format.__self__ }}",
    "context of the template": "{{ self._TemplateReference__context.eval_ctx }}",
    "insides of a namespace": "{{ namespace()._Namespace__attrs }}{{ namespace() | attr('_Namespace__attrs') }}",
    "a namespace with a dunder": "{{ namespace(__class__=1) }}",
    "a namespace given a dunder": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns.__class__ }}",
    "a namespace with an underscore": "{% set ns = namespace() %}{% set ns._x = 1 %}{{ ns._x }}",
    "class of dict": "{{ dict.__class__.__mro__ }}",
    "a cycler": "{{ cycler.__init__ }}",
    "chance by lipsum": "{{ lipsum() }}",
    "chance by a filter": "{{ messages | random }}",
    "a joiner": "{{ joiner(', ') }}",
    "messages appended": "{{ messages.append(1) }}",
    "messages cleared": "{{ messages.clear() }}",
    "a message changed": "{{ messages[1].update(role='user') }}",
    "a message popped": "{{ messages[1].pop('content') }}",
    "a key set": "{{ messages[1].setdefault('x', 1) }}",
    "translate": "{{ 'a'.translate({97: 'b'}) }}",
    "bytes": "{{ 'a'.encode().hex() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as x %}",
    "from import": "{% from '/etc/passwd' import x %}",
    "extends": "{% extends '/etc/passwd' %}",
    "debug": "{% debug %}",
    "do": "{% do messages.append(1) %}",
    "config of a web server": "{{ config.items() }}{{ request.application }}",
}

BOMBS = {
    # much out of little
    "text times a power": "{{ 'a' * 10**9 }}",
    "text times a number": "{{ 'a' * 999999999 }}",
    "message times a number": "{{ messages[1].content * 999999999 }}",
    "list times a number": "{{ [1] * 999999999 }}",
    "tuple times a number": "{{ (1,) * 999999999 }}",
    "list of long texts": LONG + "{{ [x] * 50000 }}",
    "list of long texts, joined": LONG + "{{ ([x] * 50000) | join }}",
    "power of a power": "{{ 10 ** (10 ** 10) }}",
    "power of a negative number": "{{ (-7) ** 99999999 }}",
    "squares in a loop": (
        "{% set ns = namespace(x=3) %}{% for i in range(99999) %}{% set ns.x = ns.x * ns.x %}{% endfor %}"
    ),
    "text doubled by +": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
    ),
    "text doubled by ~": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
    ),
    "text doubled by join": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}"
    ),
    "text doubled by format": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = '{0}{0}'.format(ns.x) %}{% endfor %}"
    ),
    "text doubled by %": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}"
    ),
    "text doubled by set blocks": (
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
        "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}"
    ),
    "text doubled by a macro": (
        "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}"
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = m(ns.x) %}{% endfor %}"
    ),
    "text escaped again and again": (
        "{% set ns = namespace(x='&' * 999) %}{% for i in range(99) %}{% set ns.x = ns.x | forceescape %}{% endfor %}"
    ),
    "message doubled by +": (
        "{% set ns = namespace(x=messages[1].content) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
    ),
    "message added in a loop": (
        "{% set ns = namespace(x='') %}{% for i in range(90000) %}{% set ns.x = ns.x + messages[1].content %}{% endfor %}"
    ),
    "message written in a loop": (
        "{% for i in range(90000) %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}"
    ),
    "list doubled by +": (
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
    ),
    "nested lists, written": NESTED + "{{ ns.x }}",
    "nested lists, as JSON": NESTED + "{{ ns.x | tojson }}",
    "nested lists, upper case": NESTED + "{{ ns.x | upper }}",
    "nested lists, by %": NESTED + "{{ '%s' % ns.x }}",
    "nested lists, by format": NESTED + "{{ '{}'.format(ns.x) }}",
    "nested lists, as a string": NESTED + "{{ ns.x | string | length }}",
    "nested lists, printed": NESTED + "{{ ns.x | pprint }}",
    "nested lists, joined to a text": NESTED + "{{ 'x' ~ ns.x }}",
    "nested lists, compared": NESTED + "{{ ns.x == ns.y }}",
    "nested lists, ordered": NESTED + "{{ ns.x < ns.y }}",
    "nested lists, sought": NESTED + "{{ ns.x in [ns.y] }}",
    "nested lists, tested": NESTED + "{{ ns.x is eq(ns.y) }}",
    "nested lists, selected": NESTED + "{{ [ns.x] | select('equalto', ns.y) | list | length }}",
    "nested lists, counted": NESTED + "{{ [ns.x].count(ns.y) }}",
    "nested lists, indexed": NESTED + "{{ [ns.x].index(ns.y) }}",
    "nested lists, changed": NESTED + "{% for i in [ns.x, ns.y] %}{{ loop.changed(i) }}{% endfor %}",
    "nested lists, sorted": NESTED + "{{ [ns.x, ns.y] | sort | length }}",
    "nested lists, largest": NESTED + "{{ ([ns.x, ns.y] | max) | length }}",
    "nested lists, in an error": NESTED + "{{ raise_exception(ns.x) }}",
    "nested lists, as a missing key": NESTED + "{{ messages[ns.x].y }}",
    "nested lists, as a missing attribute": NESTED + "{{ messages[0].content[ns.x].y }}",
    "nested tuples, hashed": TUPLES + "{{ {ns.x: 1} | length }}",
    "nested tuples, unique": TUPLES + "{{ [ns.x, ns.y] | unique | list | length }}",
    "nested tuples, looked up": TUPLES + "{{ messages[0][ns.x] }}",
    "nested tuples, looked up by get": TUPLES + "{{ messages[0].get(ns.x) }}",
    "nested tuples, compared": TUPLES + "{{ ns.x == ns.y }}",
    "nested tuples, unique by a generator": TUPLES + "{{ [ns.x, ns.y] | map('default') | unique | list | length }}",
    "nested tuples, sought in a generator": TUPLES + "{{ ns.x in ([ns.y] | map('default')) }}",
    "nested tuples, sought in a generator by a test": TUPLES + "{{ ns.x is in [ns.y] | map('default') }}",
    "nested tuples, largest of a generator": TUPLES + "{{ [ns.x, ns.y] | map('default') | max | length }}",
    "nested tuples, as names of a namespace": TUPLES + "{{ namespace([[ns.x, 1]]) is defined }}",
    "nested tuples, as keys of dict": TUPLES + "{{ dict([[ns.x, 1]] | map('default')) | length }}",
    "nested tuples, grouped": TUPLES + "{{ [{'a': ns.x}, {'a': ns.y}] | groupby('a') | list | length }}",
    "nested tuples, sorted by a name": TUPLES
    + "{{ [{'a': ns.x}, {'a': ns.y}] | map('default') | sort(attribute='a') | length }}",
    "nested tuples, counted in a view": TUPLES + "{{ ns.x in dict(a=ns.y).values() }}",
    "nested tuples, joint with a view": TUPLES + "{{ {ns.x: 1}.keys().isdisjoint([ns.y]) }}",
    "nested lists, by a macro": (
        "{% macro m() %}{% set ns.x = varargs %}{% endmacro %}{% macro n() %}{% set ns.y = kwargs %}{% endmacro %}"
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(40) %}{{ m(ns.x, ns.x) }}{{ n(a=ns.y, b=ns.y) }}"
        "{% endfor %}{{ ns.x == ns.y }}"
    ),
    "nested dicts, by dict": (
        "{% set ns = namespace(x={}, y={}) %}{% for i in range(40) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}"
        "{% set ns.y = dict.fromkeys('ab', ns.y) %}{% endfor %}{{ ns.x == ns.y }}"
    ),
    "nested lists, by batches": (
        "{% set ns = namespace(x=[1, 1], y=[1, 1]) %}{% for i in range(40) %}{% set ns.x = (ns.x * 2) | batch(2) | list %}"
        "{% set ns.y = (ns.y * 2) | batch(2) | list %}{% endfor %}{{ ns.x == ns.y }}"
    ),
    "nested dicts, compared": (
        "{% set ns = namespace(x={}, y={}) %}{% for i in range(40) %}{% set ns.x = {1: ns.x, 2: ns.x} %}"
        "{% set ns.y = {1: ns.y, 2: ns.y} %}{% endfor %}{{ ns.x == ns.y }}"
    ),
    # loops
    "loop in a loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loop in a loop that keeps nothing": (
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}"
    ),
    "loop in a loop over characters": LONG + "{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}",
    "a long range": "{% for a in range(99999999999) %}{% endfor %}",
    "a long range, summed": "{{ range(999999999) | sum }}",
    "a long range as keys": "{{ dict.fromkeys(range(99999999)) }}",
    "ranges without loops": "{% for a in range(99999) %}{{ range(99999) | list | length }}{% endfor %}",
    "ranges by slices": "{% for a in range(99999) %}{{ range(99999)[::1] | length }}{% endfor %}",
    "lists by slices": "{% set x = range(9999) | list %}{% for a in range(99999) %}{% set y = x[::1] %}{% endfor %}",
    "texts by slices": MANY + "{% set y = x[1:] %}{% endfor %}",
    "texts by steps": MANY + "{% set y = x[::2] %}{% endfor %}",
    "output in a loop": MANY + "{{ x }}{% endfor %}",
    "capital letters in a loop": MANY + "{% set y = x.upper() %}{% endfor %}",
    "search in a loop": MANY + "{% set y = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaab' in x %}{% endfor %}",
    "find in a loop": MANY + "{% set y = x.find('aaaaaaaaaaaaaaaaaaaaaaaaaaaaab') %}{% endfor %}",
    "count in a loop": MANY + "{% set y = x.count('aaaaaaaaaaaaaaaaaaaaaaaaaaaaab') %}{% endfor %}",
    "comparison in a loop": LONG
    + "{% set y = 'a' * 49999 + 'b' %}{% for i in range(199999) %}{{ x == y }}{% endfor %}",
    "membership in a loop": (
        "{% set x = range(9999) | list %}{% for a in range(99999) %}{% set y = -1 in x %}{% endfor %}"
    ),
    "words in a loop": MANY + "{% set y = x | wordcount %}{% endfor %}",
    "a test in a loop": MANY + "{% set y = x is lower %}{% endfor %}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that calls itself twice, sixty deep": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "a macro that writes nothing": (
        "{% macro m(n) %}{% if n %}{% set x = m(n - 1) %}{% set y = m(n - 1) %}{% endif %}{% endmacro %}"
        "{% set z = m(60) %}"
    ),
    "a caller that calls itself": (
        "{% macro m(n) %}{% if n %}{% call m(n - 1) %}{{ caller() }}{{ caller() }}{% endcall %}{% else %}{{ caller() }}"
        "{% endif %}{% endmacro %}{% call m(40) %}x{% endcall %}"
    ),
    "a recursive loop": "{% for x in [[1]] recursive %}{{ loop([x, x]) }}{% endfor %}",
    "a block that calls itself": "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "a filter block in a filter block": "{% filter upper %}" * 12 + "{{ 'a' * 999999999 }}" + "{% endfilter %}" * 12,
    "generators over generators": (
        "{% set ns = namespace(x=[1]) %}{% for i in range(20000) %}{% set ns.x = ns.x | map('string') %}{% endfor %}"
        "{{ ns.x | list }}"
    ),
    # widths
    "center": "{{ 'a'.center(10**9) }}",
    "ljust": "{{ 'a'.ljust(999999999) }}",
    "rjust of a message": "{{ messages[1].content.rjust(999999999) }}",
    "zfill": "{{ '1'.zfill(999999999) }}",
    "expandtabs": "{{ '\t'.expandtabs(999999999) }}",
    "expandtabs of many": "{{ ('\t' * 50000).expandtabs(9999) }}",
    "filter center": "{{ 'a' | center(999999999) }}",
    "filter center, mapped": "{{ ['a'] | map('center', 999999999) | list }}",
    "filter indent": "{{ 'a\nb' | indent(999999999) }}",
    "filter indent of many lines": "{{ ('a\n' * 50000) | indent(9999) }}",
    "filter batch": "{{ [1] | batch(999999999, 0) | list }}",
    "filter slice": "{{ [1] | slice(999999999) | list }}",
    "filter round": "{{ 1.5 | round(999999999) }}",
    "filter round, of a whole number": "{{ 5 | round(-999999999) }}",
    "filter round, upwards": "{{ 5 | round(999999999, 'ceil') }}",
    "filter wordwrap": "{{ ('a' * 50000) | wordwrap(1, wrapstring='x' * 50000) }}",
    "filter truncate": "{{ ('a ' * 30000) | truncate(5, end='x' * 60000) * 99 }}",
    "JSON indent": "{{ messages | tojson(indent=999999999) }}",
    "JSON indent of many": "{{ ([1] * 50000) | tojson(indent=99) }}",
    "JSON separators": LONG + "{{ ([1] * 9999) | tojson(separators=(x, x)) }}",
    "width in a percent format": "{{ '%999999999d' % 1 }}",
    "precision in a percent format": "{{ '%.999999999f' % 1.5 }}",
    "starred width": "{{ '%*d' % (999999999, 1) }}",
    "filter format": "{{ '%999999999d' | format(1) }}",
    "width in a format": "{{ '{:999999999}'.format(1) }}",
    "nested width in a format": "{{ '{:{}}'.format(1, 999999999) }}",
    "a long date": "{{ strftime_now('%Y' * 50000) }}",
    # replace and join
    "replace of nothing": LONG + "{{ x.replace('', x) }}",
    "replace of everything": LONG + "{{ x.replace('a', x) }}",
    "filter replace": LONG + "{{ x | replace('', x) }}",
    "join of long texts": LONG + "{{ x.join([x] * 50000) }}",
    "join of characters": LONG + "{{ x.join(x) }}",
    "filter join": LONG + "{{ x | join(x) }}",
    "filter urlize": "{{ ('www.a.b ' * 9999) | urlize(target='x' * 50000) }}",
    "filter xmlattr": LONG + "{{ {'a': x, 'b': x, 'c': x} | xmlattr }}",
    "filter sum of lists": "{{ ([[1] * 300] * 300) | sum(start=[]) | string * 9 }}",
    # where Jinja and Python write, walk or make more than is plain to see
    "format with many fields": LONG + "{{ ('{0}' * 16000).format(x) }}",
    "format that writes much and keeps little": "{% set x = [1] * 50000 %}{{ ('{0!r:.0}' * 9999).format(x) }}",
    "format of text marked safe": "{{ ('{:999999999}' | safe).format(1) }}",
    "percent with many fields": LONG + "{{ ('%(a)s' * 19000) % {'a': x} }}",
    "percent with a bracketed key": "{{ '%(a(b))999999999d' % {'a(b)': 1} }}",
    "percent with keys that never close": MANY + "{{ ('%(' * 25000) % {} }}{% endfor %}",
    "percent by a test": "{{ '%999999999d' is odd }}",
    "percent by another test": "{{ '%999999999d' is divisibleby(7) }}",
    "percent by a test's named number": "{{ '%999999999d' is divisibleby(num=7) }}",
    "percent of text marked safe": "{{ ('%999999999d' | safe) | format(1) }}",
    "bytes of a number": "{{ (5).to_bytes(999999999, 'big') | length }}",
    "bytes times a number": "{{ ('a'.encode() * 999999999) | length }}",
    "bytes in a list": LONG + "{{ [x.encode()] * 50000 }}",
    "list marked safe": LONG + "{{ ([x] * 50000) | safe }}",
    "list written by autoescape": LONG + "{% autoescape true %}{{ [x] * 50000 }}{% endautoescape %}",
    "list joined by autoescape": LONG + "{% autoescape true %}{{ ([x] * 50000) ~ 'a' }}{% endautoescape %}",
    "text doubled by ~ in autoescape": (
        "{% autoescape true %}{% set ns = namespace(x='ab') %}"
        "{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{% endautoescape %}"
    ),
    "join by text marked safe": LONG + "{{ (x | safe).join([x] * 50000) }}",
    "replace in text marked safe": LONG + "{{ (x | safe).replace('a', x) }}",
    "sum of many lists": "{{ ([[1]] * 90000) | sum(start=[]) | length }}",
    "a namespace written": LONG + "{% set ns = namespace(x=[x] * 50000) %}{{ ns }}",
    "a namespace that cannot be called": LONG
    + "{% set ns = namespace(unsafe_callable=true, x=[x] * 50000) %}{{ ns() }}",
    "values written": LONG + "{{ dict(a=[x] * 50000).values() }}",
    "a mapping written": LONG + "{{ dict(a=[x] * 50000).keys().mapping }}",
    "a list as a missing key": LONG + "{{ messages[[x] * 50000].y }}",
    "indent of deep JSON": (
        "{% set ns = namespace(x=[1] * 30000) %}"
        "{% for i in range(200) %}{% set ns.x = [ns.x] %}"
        "{% endfor %}{{ ns.x | tojson(indent=99) }}"
    ),
    "deep tuples, hashed": (
        "{% set ns = namespace(x=(1,)) %}"
        "{% for i in range(60000) %}{% set ns.x = (ns.x,) %}"
        "{% endfor %}{{ {ns.x: 1} | length }}"
    ),
    "deep tuples, unique": (
        "{% set ns = namespace(x=(1,)) %}"
        "{% for i in range(60000) %}{% set ns.x = (ns.x,) %}"
        "{% endfor %}{{ [ns.x] | unique | list | length }}"
    ),
    "deep lists, compared": (
        "{% set ns = namespace(x=[1], y=[1]) %}"
        "{% for i in range(60000) %}{% set ns.x = [ns.x] %}"
        "{% set ns.y = [ns.y] %}"
        "{% endfor %}{{ ns.x == ns.y }}"
    ),
    "a long loop body": "{% for i in range(99999) %}" + BODY + "{% endfor %}",
    "a long macro": "{% macro m() %}" + BODY + "{% endmacro %}{% for i in range(99999) %}{% set x = m() %}{% endfor %}",
    "a long block": "{% block b %}"
    + BODY
    + "{% endblock %}{% for i in range(99999) %}{% set x = self.b() %}{% endfor %}",
    "a long recursive loop": "{% for i in [1] recursive %}"
    + BODY
    + "{% if loop.depth < 3 %}{{ loop([1] * 1000) }}{% endif %}{% endfor %}",
    "loop in a loop over items": (
        "{% set d = dict.fromkeys(range(9999)) %}"
        "{% for a in d.items() %}"
        "{% for b in d.items() %}{% endfor %}{% endfor %}"
    ),
    "loop in a loop over values": (
        "{% set d = dict.fromkeys(range(9999)) %}"
        "{% for a in d.values() %}"
        "{% for b in d.values() %}{% endfor %}{% endfor %}"
    ),
    "sets in a loop": (
        "{% set d = dict.fromkeys(range(50000)) %}{% for i in range(99999) %}{% set y = d.keys() - [] %}{% endfor %}"
    ),
    "a range summed in a loop": (
        "{% set r = range(99999) %}{% for i in range(50000) %}{% set y = r | sum %}{% endfor %}"
    ),
    "a range counted in a loop": (
        "{% set r = range(99999) %}{% for i in range(50000) %}{% set y = r.count('a') %}{% endfor %}"
    ),
    "the last of sorted items, in a loop": (
        "{% set d = dict.fromkeys(range(50000)) %}{% for i in range(50000) %}{% set y = d | items | max %}{% endfor %}"
    ),
    "filled batches in a loop": "{% for i in range(60000) %}{% set y = [1] | batch(9999, 0) | list %}{% endfor %}",
    "search from the right in a loop": LONG
    + "{% set y = 'ab' ~ 'a' * 24000 %}{% for i in range(99999) %}{% set z = x.rfind(y) %}{% endfor %}",
    "split from the right in a loop": LONG
    + "{% set y = 'ab' ~ 'a' * 24000 %}{% for i in range(99999) %}{% set z = x.rsplit(y) | length %}{% endfor %}",
    "split from the right by name, in a loop": (
        LONG + "{% set y = 'ab' ~ 'a' * 24000 %}"
        "{% for i in range(99999) %}{% set z = x.rsplit(sep=y) | length %}{% endfor %}"
    ),
    "search of short texts in a loop": (
        "{% set x = 'a' * 2400 %}"
        "{% set y = 'a' * 1200 ~ 'b' %}"
        "{% for i in range(99999) %}{% set z = y in x %}{% endfor %}"
    ),
    "strip of many letters in a loop": LONG
    + "{% set y = 'b' * 50000 ~ 'a' %}{% for i in range(99999) %}{% set z = x.strip(y) %}{% endfor %}",
    "filter trim of many letters in a loop": LONG
    + "{% set y = 'b' * 50000 ~ 'a' %}{% for i in range(99999) %}{% set z = x | trim(y) %}{% endfor %}",
    "comparison of lists in a loop": (
        "{% set x = range(9999) | list %}"
        "{% set y = range(9999) | list %}"
        "{% for i in range(99999) %}{% set z = x == y %}{% endfor %}"
    ),
    "a chain of comparisons in a loop": (
        "{% set x = range(9999) | list %}{% for i in range(99999) %}{% set z = x <= x <= x %}{% endfor %}"
    ),
    "comparison by a test in a loop": (
        "{% set x = range(9999) | list %}{% for i in range(99999) %}{% set z = x is eq(x) %}{% endfor %}"
    ),
    "a long constant searched in a loop": "{% for i in range(99999) %}{% set z = 'b' in '"
    + "a" * 200000
    + "' %}{% endfor %}",
    "tuples hashed in a loop": (
        "{% set x = (1,) * 50000 %}{% for i in range(99999) %}{% set z = messages[0][x] %}{% endfor %}"
    ),
    "a patchwork, taken apart": PATCHWORK + "{{ x.split('b') | length }}{{ raise_exception('no') }}",
    "a patchwork, letter by letter": PATCHWORK + "{% for i in range(99999) %}{% set y = x[i % 9] %}{% endfor %}",
    "a patchwork, as a list": PATCHWORK + "{{ x | list | length }}{{ raise_exception('no') }}",
    "steps through a message in a loop": LONG_MESSAGE + "{% for i in range(99999) %}{% set y = x[::2] %}{% endfor %}",
    "filter urlize of brackets": "{{ (')' * 50000 ~ 'a') | urlize }}",
    "filter urlize of addresses": "{{ ('a@a.' * 9999) | urlize }}",
    "filter striptags of comments": (
        "{% set x = '<!---->' * 12000 %}{% for i in range(99999) %}{% set y = x | striptags %}{% endfor %}"
    ),
    "filter wordwrap of a long word, in a loop": MANY + "{% set y = x | wordwrap(1) %}{% endfor %}",
    "filter pprint of deep lists": (
        "{% set ns = namespace(x=['a ' * 40000]) %}"
        "{% for i in range(150) %}{% set ns.x = [ns.x] %}"
        "{% endfor %}"
        "{% for i in range(9999) %}"
        "{% set y = ns.x | pprint %}{% endfor %}"
    ),
    "an attribute of many parts": "{% set x = range(9999) | map(attribute=('a.' * 9999) ~ 'a', default=1) | list %}",
    "an attribute of many parts, sorted": (
        "{% set x = [1] * 9999 %}"
        "{% set y = x | sort(attribute=('real,' * 9999) ~ 'real') %}"
        "{% for i in range(99999) %}"
        "{% set y = x | sort(attribute=('real,' * 9999) ~ 'real') %}{% endfor %}"
    ),
    "numbers doubled by +": (
        "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
    ),
    "numbers doubled by -": (
        "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = ns.x - (-ns.x) %}{% endfor %}"
    ),
    "a number of many hexadecimal digits": (
        "{% set x = ('f' * 90000) | int(base=16) %}{% for i in range(99999) %}{% set y = (x * 1) // 7 %}{% endfor %}"
    ),
    "steps given back": (
        "{% set x = [-999999999] | map(' body') | list %}"
        "{% set y = [1] | map(' each', -999999) | list %}"
        "{% for a in range(99999) %}"
        "{% for b in range(9999) %}{% endfor %}{% endfor %}"
    ),
    "batches of batches": (
        "{% set ns = namespace(x=[1]) %}"
        "{% for i in range(20000) %}{% set ns.x = ns.x | batch(1) %}"
        "{% endfor %}{{ ns.x | list }}"
    ),
    "batches filled with batches": (
        "{% set ns = namespace(x=[1]) %}"
        "{% for i in range(20000) %}{% set ns.x = [1] | batch(2, ns.x) %}"
        "{% endfor %}{{ raise_exception('no') }}"
    ),
    "items of items": (
        "{% set ns = namespace(x=[1]) %}"
        "{% for i in range(20000) %}{% set ns.x = ns.x | items %}"
        "{% endfor %}{{ raise_exception('no') }}"
    ),
    "loops over loops": (
        "{% set ns = namespace(x=[1, 2]) %}"
        "{% for i in range(20000) %}"
        "{% for a in ns.x %}{% set ns.x = loop %}{% break %}{% endfor %}"
        "{% endfor %}{{ raise_exception('no') }}"
    ),
    "questions without end": (
        "{% for i in range(60000) %}"
        "{% if (i | string) in messages[0].content %}{% endif %}"
        "{% endfor %}{{ 'a' * 999999999 }}"
    ),
    "chance decides": (
        "{% if ((raise_exception | string)[-3] in '02468ace') %}"
        "{% for a in range(99999) %}"
        "{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}{{ raise_exception('no') }}"
    ),
    "chance decides otherwise": (
        "{% if ((raise_exception | string)[-3] in '13579bdf') %}"
        "{% for a in range(99999) %}"
        "{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}{{ raise_exception('no') }}"
    ),
    "text written by join over a generator": LONG + "{{ ''.join(([x] * 50000) | map('string')) }}",
    "text of a generator marked safe, joined": LONG + "{{ ('' | safe).join(([x] * 50000) | map('string')) }}",
    "filter join of a generator": LONG + "{{ ([x] * 50000) | map('string') | join }}",
    "filter join by attribute": "{{ ([messages[0]] * 50000) | join('x' * 50000, attribute='content') }}",
    "filter indent by a list": "{{ ('a\n' * 30000) | indent(['x' * 50000]) }}",
    "tabs of text": "{{ ('\t' * 50000).expandtabs('x' * 50000) }}",
    "sum of tuples": "{{ ([(1,)] * 90000) | sum(start=()) | length }}{{ raise_exception('no') }}",
    "a macro given too much": LONG + "{% macro m() %}{{ varargs }}{% endmacro %}{{ m(*([x] * 50000)) }}",
    # what the tracing sees otherwise than plain Jinja does
    "a bomb for plain Jinja: identity": (
        "{% if (messages[1].content + '') is sameas messages[1].content %}{{ 'a' * 999999999 }}{% endif %}"
        "{{ raise_exception('no') }}"
    ),
    "a bomb for plain Jinja: bytes": "{% set x = 'a'.encode() %}{{ 'a' * 9999999999 }}",
    "a loop for plain Jinja: identity": (
        "{% if (messages[1].content + '') is sameas messages[1].content %}"
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}{{ raise_exception('no') }}"
    ),
    "a loop for plain Jinja: bytes": (
        "{% set x = 'a'.encode() %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    ),
}
BROKEN = {
    "no statement": "{% for %}",
    "an unknown filter": "{{ x | nosuchfilter }}",
    "an unknown test": "{{ x is nosuchtest }}",
    "an unclosed block": "{% if true %}",
    "five thousand brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a sum of fifty thousand": "{{ " + "1 + " * 50_000 + "1 }}",
    "forty thousand filters": "{{ 1" + " | abs" * 40_000 + " }}",
    "ten thousand attributes": "{{ messages" + ".a" * 10_000 + " }}",
    "thirty loops in each other": "{% for i in [1] %}" * 30 + "x" + "{% endfor %}" * 30,
    "three hundred conditions in each other": "{% if true %}" * 300 + "x" + "{% endif %}" * 300,
    "a number of a hundred thousand digits": "{{ " + "9" * 100_000 + " }}",
    "more characters than are read": "x" * 250_001,
    "a NUL in a name": "{{ a\0b }}",
}
