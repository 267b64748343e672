//! Templates that were made to do harm: every one ends, in an error that says why, on a stack of 1 MiB as a page has.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nemoflash::{ChatTemplate, Error, Message, Role, TemplateOptions};

use super::chat::{CHATML, THINK, tokenizers, user};
use super::{Random, ours};

/// Renders on a small stack.
fn render(source: &str) -> Result<String, Error> {
    let source = source.to_owned();
    let run = move || ChatTemplate::new(&source)?.render(&user("hi there"), true, &TemplateOptions::default());
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().expect("no panic")
}

#[track_caller]
fn refused(source: &str, words: &[&str]) {
    let shown: String = source.chars().take(200).collect();
    match render(source) {
        Err(Error::Template { why }) => {
            assert!(words.iter().any(|word| why.contains(word)), "{shown}: {why}");
            assert!(why.chars().count() <= 401, "{shown}");
        }
        other => panic!("{shown}: {:.100?}", other),
    }
}

#[test]
fn work_and_data_are_paid_with_fuel() {
    for source in [
        "{{ 'x' * 10**9 }}",
        "{{ 'x' * 1000000000 }}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{% for k in range(1000) %}x{% endfor %}{% endfor %}{% endfor %}",
        "{% for i in range(90000) %}{{ range(90000)|list|length }}{% endfor %}",
        "{{ range(99999)|list }}",
        "{{ 'a\na'|indent(1000000000) }}",
        "{{ ('x' * 1000).join(range(100000)) }}",
        "{% set ns = namespace(x='aa') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x.replace('a', 'aaaaaaaa') %}{% endfor %}",
        "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x|replace('a', 'aaaaaaaa') %}{% endfor %}",
        "{% set ns = namespace(x='\\\\') %}{% for i in range(99) %}{% set ns.x = ns.x|tojson %}{% endfor %}",
        "{% set s = 'a ' * 1000000 %}{{ s.split()|length }}",
        "{% set s = 'a\n' * 1000000 %}{{ s.splitlines()|length }}",
        "{% set s = 'a' * 900000 %}{% for i in range(99999) %}{% if s.count('b') or s.find('b') %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 900000 %}{% set t = s ~ 'b' %}{% for i in range(99999) %}{% if s == t or 'b' in s %}{% endif %}{% endfor %}",
        "{% set l = range(9000)|list %}{% for i in range(99999) %}{% if -1 in l %}{% endif %}{% endfor %}",
    ] {
        refused(source, &["fuel", "holds too much"]);
    }
    refused("{% for i in range(10**12) %}{% endfor %}", &["too many"]);
    refused("{{ 10**100000000 }}", &["unable to calculate"]);
    refused("{% set x = 'x' * 1500000 %}{{ x }}", &["more than 1048576"]);
    // Negative control: the same in small.
    assert_eq!(render("{% for i in range(3) %}{{ 'x' * 3 }}{% endfor %}").unwrap(), "xxxxxxxxx");
}

#[test]
fn values_stay_trees() {
    // Lists and namespaces that hold themselves, or one another twice, forty times over.
    let twice = |bind: &str| format!("{{% set x = messages %}}{}", format!("{{% set x = {bind} %}}").repeat(40));
    for source in [
        "{% set ns = namespace() %}{% for i in range(9) %}{% set ns.x = [ns] %}{% endfor %}".to_owned(),
"{% set a = namespace() %}{% set b = namespace(x=a) %}{% for i in range(9) %}{% set a.x = b %}{% set b.x = a %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}".to_owned(),
        "{% set ns = namespace(x={}) %}{% for i in range(9000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x|tojson }}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(9000) %}{% set y = [ns.x, ns.x] %}{% set ns.x = y %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=messages) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}".to_owned(),
        twice("[x, x]") + "{{ x }}",
        twice("(x, x)") + "{{ x == x }}",
        twice("x, x") + "{{ x }}",
        twice("{'a': x, 'b': x}") + "{{ x|tojson }}",
        twice("x + x") + "{{ x }}",
        twice("namespace(a=x, b=x)") + "{{ x == 1 }}",
        twice("[x, x]|list") + "{{ x|string }}",
        twice("[x]|batch(2, x)|list") + "{{ x|string }}",
        twice("[{'a': x, 'b': x}]|groupby('a')") + "{{ x|string }}",
        twice("dict(a=x, b=x)") + "{{ x|string }}",
        twice("dict(messages[0], a=x, b=x)") + "{{ x|tojson }}",
        "{% set x = messages %}".to_owned() + &"{% with x = [x, x] %}".repeat(40) + "{{ x }}" + &"{% endwith %}".repeat(40),
        "{% macro m(x) %}{{ caller([x, x]) }}{% endmacro %}{% set x = messages %}".to_owned() + &"{% call(x) m(x) %}".repeat(40) + "{{ x }}" + &"{% endcall %}".repeat(40),
        "{% macro m(x) %}{{ m(*[[x, x, x, x, x, x, x, x]]) }}{% endmacro %}{{ m(messages) }}".to_owned(),
        "{% set x = messages %}".to_owned() + &"{% set x | list | batch(90, x) %}ab{% endset %}".repeat(9) + "{{ x }}",
        "{% set ns = namespace(x=messages) %}".to_owned() + &"{% set ns.x|list|batch(90, ns.x) %}ab{% endset %}".repeat(9) + "{{ ns.x }}",
        "{% set x = messages * 2 %}".to_owned(),
        "{% for a in [[messages] ] %}".to_owned() + &"{% for a in [[a, a, a, a, a, a, a, a]] %}".repeat(30) + "{{ a }}" + &"{% endfor %}".repeat(31),
        "{% macro m(x, y=[1, 2], z=(3)) %}{% if x|length < 999 %}{{ m([x, x, x, x, x, x, x, x]) }}{% endif %}{{ x }}{% endmacro %}{{ m(messages) }}".to_owned(),
        "{% macro m(x, y=[1]) %}{{ m(1, [y, y, y, y, y, y, y, y]) }}{{ y == 3 }}{% endmacro %}{{ m(1) }}".to_owned(),
        "{% for x in [messages] recursive %}{{ loop([[x, x, x, x, x, x, x, x]]) }}{% endfor %}".to_owned(),
        "{% set f = raise_exception %}".to_owned(),
    ] {
        refused(&source, &["holds too much", "fuel", "recursion", "cannot hold a function", "supported"]);
    }
    // Slices of slices are computed when they are bound.
    let slices = "{% set ns = namespace(x=messages) %}{% for i in range(2000) %}{% set ns.x = ns.x[0:] %}{% endfor %}{{ ns.x|length }}";
    assert_eq!(render(slices).unwrap(), "1");
    assert!(render(&(twice("x[0:]") + "{{ x|length }}")).is_ok());
    // Negative control: honest lists are not touched.
    let kept = "{% set x = messages + [{'role': 'system', 'content': [1, (2, 3)]}] %}{{ x[1].content[1][0] }}{{ x|tojson }}{% set ns = namespace(a=1, b=x) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ ns.b|length }}";
    let json = r#"2[{"role": "user", "content": "hi there"}, {"role": "system", "content": [1, [2, 3]]}]22"#;
    assert_eq!(render(kept).unwrap(), json);
}

/// What holds itself is never freed, and whoever prints or compares it does not end.
#[test]
fn a_namespace_holds_copies() {
    for (source, expected) in [
        (
            "{% set ns = namespace(a=1) %}{% set ns.x = ns %}{% set ns.a = 2 %}{{ ns.x.a }}{{ ns }}",
            "1{'a': 2, 'x': {'a': 1}}",
        ),
        (
            "{% set ns = namespace(a=1) %}{% set ns.x = [ns] %}{% set ns.a = 2 %}{{ ns.x[0].a }}{{ ns.x == ns }}",
            "1False",
        ),
        ("{% set a = namespace() %}{% set b = namespace() %}{% set a.x, b.x = b, a %}{{ a.x }}{{ b.x }}", "{}{}"),
        (
            "{% set ns = namespace() %}{% set ns.x %}{{ ns }}{% endset %}{% set ns.y = 'a' if false else ns.x -%}  {{ ns.y }}",
            "{}",
        ),
    ] {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
    refused("{% set x = %}", &["no valid Jinja"]);
}

#[test]
fn nesting_is_bounded() {
    let n = 30_000;
    for source in [
        format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n)),
        format!("{{{{ {}1{} }}}}", "[".repeat(n), "]".repeat(n)),
        format!("{{{{ {}1 }}}}", "not ".repeat(n)),
        format!("{{{{ {}1 }}}}", "- ".repeat(n)),
        format!("{{{{ x{} }}}}", ".a".repeat(n)),
        format!("{{{{ x{} }}}}", "()".repeat(n)),
        format!("{{{{ x{} }}}}", "[0]".repeat(n)),
        format!("{{{{ 1{} }}}}", "+x".repeat(n)),
        format!("{{{{ 1{} }}}}", " or x".repeat(n / 2)),
        format!("{{{{ 1{} }}}}", "|string".repeat(n / 2)),
        format!("{{{{ 1{} }}}}", " if x else x".repeat(n / 4)),
        format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(n / 4)),
        format!("{}{}", "{% if x %}".repeat(n / 8), "{% endif %}".repeat(n / 8)),
        format!("{}{}", "{% for i in x %}".repeat(n / 10), "{% endfor %}".repeat(n / 10)),
        format!("{}{}", "{% set x %}".repeat(n / 8), "{% endset %}".repeat(n / 8)),
        format!("{}{}", "{% with %}".repeat(n / 8), "{% endwith %}".repeat(n / 8)),
        format!("{}{}", "{% filter e %}".repeat(n / 10), "{% endfilter %}".repeat(n / 10)),
        "{% macro m() %}{% call m() %}{% endcall %}{{ caller() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}".to_owned(),
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "x".repeat((128 << 10) + 1),
    ] {
        refused(&source, &["more than", "recursion"]);
    }
    // Just below the bounds, everything fits on the stack.
    for source in [
        format!("{{{{ 1{} }}}}", "+1".repeat(199)),
        format!("{{{{ 1{} }}}}", "*1".repeat(199)),
        "{{ 'a'%(1) }}".to_owned(),
        format!("{}{}", "{% with x = 1 %}".repeat(70), "{% endwith %}".repeat(70)),
        format!("{}{}", "{% filter e %}".repeat(70), "{% endfilter %}".repeat(70)),
        format!("{{{{ {}1 }}}}", "not ".repeat(140)),
        format!("{{{{ {}1 }}}}", "- ".repeat(398)),
        format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(200)),
        format!("{}{}", "{% if 1 %}".repeat(70), "{% endif %}".repeat(70)),
        format!("{}{}{}", "{% if 0 %}{% elif 1 %}{% elif x %}".repeat(60), "{{ 1 }}", "{% endif %}".repeat(60)),
    ] {
        assert!(render(&source).is_ok(), "{source:.100}");
    }
}

#[test]
fn what_minijinja_does_not_bound_is_not_there() {
    for (source, words) in [
        ("{% for i in messages %}{{ loop.cycle() }}{% endfor %}", &["cycle"][..]),
        ("{% for i in messages %}{{ loop.cycle(*[]) }}{% endfor %}", &["cycle"]),
        ("{% for i in messages %}{{ (loop.cycle)() }}{% endfor %}", &["cycle"]),
        ("{% for i in messages %}{{ (loop|attr('cycle'))() }}{% endfor %}", &["undefined", "cycle", "callable"]),
        ("{% for i in messages %}{{ loop['cycle']() }}{% endfor %}", &["callable", "undefined"]),
        ("{{ range(9)|list * 9 }}", &["line 1: `*` is supported for texts and numbers"]),
        ("{{ 9 * range(9)|list }}", &["line 1: `*` is supported"]),
        ("{{ 9 * -9 * ([1]) }}", &["line 1: `*` is supported"]),
        ("{{ 9 * messages[0:1] if 1 }}", &["line 1: `*` is supported"]),
        ("{{ f(*messages) }}", &["f is unknown"]),
        ("{% set s = 'a' * 900000 %}{{ s.strip(s) }}", &["to strip"]),
        ("{% set s = 'a' * 900000 %}{{ s|trim(s) }}", &["to strip"]),
        ("{{ messages|zip(messages) }}", &["zip"]),
        ("{{ debug() }}", &["debug"]),
        ("{{ strftime_now('%Y') }}", &["strftime_now"]),
        ("{% include 'x' %}", &["include"]),
        ("{% import 'x' as y %}", &["import"]),
        ("{% extends 'x' %}", &["extends"]),
        ("\n{% raw %}{{ ' }}{% endrow %}", &["line 2: `{% raw %}` is not closed"]),
        ("a\r\nb\rc{% autoescape true %}{% endautoescape %}", &["line 3: `{% autoescape %}` is not supported"]),
        ("{{ '", &["not closed"]),
        ("{{ ) }}", &["opens nothing"]),
        ("{% if %}", &["line 1: it is no valid Jinja"]),
        ("{#", &["comment"]),
        ("{{ x.y }}", &["undefined"]),
        ("{{ raise_exception('no: ' ~ 'because') }}", &["no: because"]),
        ("{{ raise_exception('x' * 100000) }}", &["xxx"]),
        ("{{ messages|nosuchfilter }}", &["nosuchfilter"]),
        ("{{ 1 // 0 }}", &["unable to calculate"]),
    ] {
        refused(source, words);
    }
}

/// Every width that a template names is paid before anything so wide is made.
#[test]
fn widths_are_bounded() {
    for (wide, small, expected) in [
        ("{{ [[1]]|tojson(indent=3000000) }}", "{{ [[1]]|tojson(indent=1) }}", "[\n [\n  1\n ]\n]"),
        ("{{ [[1]]|tojson(indent='x' * 1500000) }}", "{{ [1]|tojson(indent='x') }}", "[\nx1\n]"),
        (
            "{{ [1, 2, 3, 4]|tojson(separators=('x' * 900000, 'x')) }}",
            "{{ [1, 2]|tojson(separators=('x', 'y')) }}",
            "[1x2]",
        ),
        ("{{ 'a'.ljust(3000000) }}", "{{ 'a'.ljust(2) }}", "a "),
        ("{{ 'a'.rjust(3000000) }}", "{{ 'a'.rjust(2) }}", " a"),
        ("{{ 'a'.center(3000000) }}", "{{ 'a'.center(3) }}", " a "),
        ("{{ 'a'|center(3000000) }}", "{{ 'a'|center(3) }}", " a "),
        ("{{ 'a'.zfill(3000000) }}", "{{ 'a'.zfill(2) }}", "0a"),
        ("{{ '%3000000d' % 1 }}", "{{ '%2d' % 1 }}", " 1"),
        ("{{ '%.3000000f' % 1.5 }}", "{{ '%.2f' % 1.5 }}", "1.50"),
        ("{{ '%3000000s'|format(1) }}", "{{ '%2s'|format(1) }}", " 1"),
        ("{{ '{:3000000}'.format(1) }}", "{{ '{:2}'.format(1) }}", " 1"),
        ("{{ '{:.3000000f}'.format(1.5) }}", "{{ '{:.1f}'.format(1.5) }}", "1.5"),
        ("{% set x = 'x' * 900000 %}{{ '{0}{0}{0}'.format(x) }}", "{{ '{0}{0}'.format('x') }}", "xx"),
        ("{% set x = 'x' * 900000 %}{{ '%(a)s%(a)s%(a)s'|format(a=x) }}", "{{ '%(a)s%(a)s' % {'a': 1} }}", "11"),
        ("{{ [1]|batch(3000000, 1)|list }}", "{{ [1]|batch(2, 1)|list }}", "[[1, 1]]"),
        ("{{ [1]|batch(30000, 1)|list }}", "{{ [1]|batch(2)|list }}", "[[1]]"),
        ("{{ 'a\n\nb'|indent(3000000) }}", "{{ 'a\nb'|indent(1) }}", "a\n b"),
        ("{{ 'x' * 10000000 }}", "{{ 'x' * 2 }}", "xx"),
        ("{% set n = 10000000 %}{{ n * 'x' }}", "{% set n = 2 %}{{ n * 'x' }}", "xx"),
        ("{{ range(1000000)|list }}", "{{ range(2)|list }}", "[0, 1]"),
        ("{{ strftime_now }}{{ ' ' * 2 * 1000 * 10000 }}", "{{ 2 * 'x' * 2 }}", "xxxx"),
        ("{% set x = 'x' * 1900000 %}{{ [x, x, x] }}", "{% set x = 'x' %}{{ [x, x] }}", "['x', 'x']"),
    ] {
        refused(wide, &["is more than", "more than 2097152", "fuel", "holds too much", "too many"]);
        assert_eq!(render(small).unwrap(), expected, "{small}");
    }
}

#[test]
fn honest_templates_have_fuel_to_spare() {
    let talk = |turns: usize, length: usize| -> Vec<Message> {
        (0..turns)
            .map(|i| match i % 2 {
                0 => Message::new(Role::User, "a question ".repeat(length)),
                _ => Message::new(Role::Assistant, format!("<think>\nhm\n</think>\n\n{}", "an answer ".repeat(length))),
            })
            .collect()
    };
    for source in [CHATML, THINK] {
        let template = ChatTemplate::new(source).unwrap();
        // A conversation of 501 turns; one message of 400 KB, some 100,000 tokens.
        assert!(template.render(&talk(501, 10), true, &TemplateOptions::default()).is_ok());
        assert!(template.render(&talk(1, 36_000), true, &TemplateOptions::default()).is_ok());
        assert!(template.render(&talk(21, 1_800), true, &TemplateOptions::default()).is_ok());
        // Negative control: there is an end to it.
        assert!(matches!(
            template.render(&talk(20_001, 1), true, &TemplateOptions::default()),
            Err(Error::Template { .. })
        ));
        assert!(matches!(
            template.render(&talk(1, 60_000), true, &TemplateOptions::default()),
            Err(Error::Prompt { .. })
        ));
    }
}

/// Pieces of Jinja in random order, and honest templates with pieces exchanged.
#[test]
fn random_templates_never_panic() {
    const PIECES: &[&str] = &[
        "{{",
        "}}",
        "{%",
        "%}",
        "{%-",
        "-%}",
        "{#",
        "#}",
        " ",
        "\n",
        "'",
        "\"",
        "\\",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        ":",
        "|",
        "~",
        "+",
        "-",
        "*",
        "**",
        "/",
        "//",
        "%",
        "=",
        "==",
        "<",
        ">",
        "!=",
        "if",
        "elif",
        "else",
        "endif",
        "for",
        "in",
        "endfor",
        "set",
        "endset",
        "macro",
        "endmacro",
        "is",
        "not",
        "and",
        "or",
        "defined",
        "none",
        "true",
        "x",
        "y",
        "ns",
        "ns.x",
        "messages",
        "message",
        "message.content",
        "loop",
        "loop.index0",
        "namespace(x=[])",
        "range(9)",
        "-1",
        "0",
        "1",
        "3.5",
        "99999999999",
        "9223372036854775807",
        "'a'",
        "'</think>'",
        "length",
        "list",
        "tojson",
        "trim",
        "join",
        "map",
        "select",
        "split('a')",
        "strip()",
        "items()",
        "[::-1]",
        "[1:]",
        "string",
        "int",
        "round",
        "sort",
        "reverse",
        "default",
        "first",
        "last",
        "replace('a', 'b')",
        "{{ x }}",
        "{% set x = [x, x] %}",
        "{% set ns.x = [ns] %}",
        "{% endif %}",
        "{% endfor %}",
        "{% for x in messages %}",
        "{% if x %}",
        "generation",
        "_keep",
        "*",
        "%",
        "'%s' %",
        "{% raw %}",
        "{% endraw %}",
        "with x = x",
        "endwith",
        "call(x) m(*y)",
        "endcall",
        "filter",
        "endfilter",
        "batch(2, x)",
        "groupby('role')",
        "rsplit('a', 1)",
        "ljust(9)",
        "tojson(indent=2)",
        "format(x)",
        "cycle(1)",
        "\r\n",
        "é",
        "\u{2028}",
        "\u{E000}",
    ];
    let (tokenizer, mut random) = (ours(&tokenizers()[0]).unwrap(), Random(11));
    let (mut rendered, mut refused) = (0, 0);
    for i in 0..20_000 {
        let source = match i % 2 {
            0 => {
                (0..random.below(30)).map(|_| *random.pick(PIECES)).collect::<Vec<_>>().join([" ", ""][random.below(2)])
            }
            _ => {
                let mut source: Vec<char> = random.pick(&[CHATML, THINK]).chars().collect();
                for _ in 0..1 + random.below(4) {
                    let (at, length) = (random.below(source.len()), random.below(12));
                    let end = (at + length).min(source.len());
                    let piece: Vec<char> = match random.below(3) {
                        0 => vec![],
                        1 => random.pick(PIECES).chars().collect(),
                        _ => {
                            let from = random.below(source.len());
                            source[from..(from + 40).min(source.len())].to_vec()
                        }
                    };
                    source.splice(at..end, piece);
                }
                source.into_iter().collect()
            }
        };
        let talk = [Message::new(Role::User, "a</think>b"), Message::new(Role::Assistant, " x\n")];
        let run = || {
            let template = ChatTemplate::new(&source)?;
            let text = template.render(&talk, i % 3 == 0, &TemplateOptions::default())?;
            drop(template.encode(&tokenizer, &talk, i % 3 == 0, &TemplateOptions::default()));
            Ok(text)
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(_)) => rendered += 1,
            Ok(Err(Error::Template { .. })) => refused += 1,
            other => panic!("{source:?}: {other:?}"),
        }
    }
    assert!(rendered > 1000 && refused > 1000, "both sides are visited: {rendered} rendered, {refused} refused");
}
