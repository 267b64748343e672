//! Conversations on an engine: messages in, events out.
#![forbid(unsafe_code)]

use nemoflash::{
    Answer, Chat, ChatEvent, ChatFiles, ChatFormat, ChatOptions, End, Engine, EngineOptions, Error, Exec, Kv, Message,
    ModelText, Result, Role, TextFiles, defaults,
};
use nemoflash_tests::{load, model_dir};
use pollster::block_on;
use std::ops::ControlFlow;

const CONTEXT: u32 = 200;
const TEMPLATE: &str = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}<s>assistant\n";

fn engine(slots: u32) -> Engine {
    let loaded = load(Exec::cpu(), "fables").expect("model");
    let options = EngineOptions { slots, context: CONTEXT, kv: Kv::F32, ..Default::default() };
    block_on(Engine::new(loaded, options)).expect("engine")
}

fn text() -> ModelText {
    let tokenizer = std::fs::read(model_dir("fables").join("tokenizer.json")).expect("tokenizer");
    let chat = ChatFiles { chat_template_jinja: Some(TEMPLATE.as_bytes()), ..Default::default() };
    ModelText::new(&TextFiles { name: "fables", tokenizer_json: &tokenizer, chat, ..Default::default() }).expect("text")
}

fn options(format: ChatFormat) -> ChatOptions {
    ChatOptions { format: Some(format), max_tokens: 6, temperature: Some(0.0), ..Default::default() }
}

fn user(text: &str) -> Message {
    Message::new(Role::User, text)
}

fn quiet(_: ChatEvent) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn say(chat: &mut Chat, engine: &mut Engine, text: &str, options: &ChatOptions) -> Result<Answer> {
    block_on(chat.say(engine, &self::text(), text, options, &mut quiet))
}

/// What a conversation that knows nothing answers to these messages.
fn fresh(engine: &mut Engine, slot: u32, messages: &[Message], options: &ChatOptions) -> Answer {
    let mut chat = Chat::new(slot, vec![]);
    let answer = block_on(chat.answer(engine, &text(), messages.to_vec(), options, &mut quiet)).expect("answer");
    assert_eq!(answer.cached_tokens, 0);
    chat.reset(engine);
    answer
}

fn same(a: &Answer, b: &Answer) {
    assert_eq!((&a.text, &a.ids, a.end, a.prompt_tokens), (&b.text, &b.ids, b.end, b.prompt_tokens));
}

/// Each in a slot of its own, turn about: what one reads is nothing to the other.
#[test]
fn two_conversations_share_an_engine() {
    let mut engine = engine(3);
    let asked = [["Once upon a time", "And then?", "More"], ["There was a King", "Who?", "Why?"]];
    for format in [ChatFormat::Template, ChatFormat::Instruct] {
        let options = options(format);
        let system = Message::new(Role::System, "Tell tales.");
        let mut chats = [0, 1].map(|slot| Chat::new(slot, vec![system.clone()]));
        for turn in 0..3 {
            for (chat, asked) in chats.iter_mut().zip(&asked) {
                let messages = [chat.messages(), &[user(asked[turn])]].concat();
                let answer = say(chat, &mut engine, asked[turn], &options).expect("a turn");
                same(&answer, &fresh(&mut engine, 2, &messages, &options));
                assert_eq!(answer.cached_tokens > 0, turn == 2, "a snapshot is there from the third turn on");
                assert_eq!(chat.messages().len(), messages.len() + 1);
            }
        }
        // Negative control: the two say different things.
        assert_ne!(chats[0].messages().last(), chats[1].messages().last());
        for chat in &mut chats {
            chat.reset(&mut engine);
            assert_eq!((chat.messages(), chat.has_begun()), (&[system.clone()][..], false));
        }
    }
}

/// A list of messages may have anything in common with the last one.
#[test]
fn a_list_of_messages_is_read_from_where_it_is_new() {
    let (mut engine, options) = (engine(2), options(ChatFormat::Template));
    let mut chat = Chat::new(0, vec![]);
    let mut messages = vec![user("Once upon a time there was a King who had three daughters.")];
    let mut cached = vec![];
    let long = [user("Once upon a time there was a King who had three daughters."), user("and a fox")];
    for next in [&[][..], &[Message::new(Role::Assistant, "Yes."), user("And then?")], &[], &long] {
        // The last list is another conversation with the same beginning.
        messages =
            if next.len() == 2 && next[0].role == Role::User { next.to_vec() } else { [&messages, next].concat() };
        let answer =
            block_on(chat.answer(&mut engine, &text(), messages.clone(), &options, &mut quiet)).expect("answer");
        same(&answer, &fresh(&mut engine, 1, &messages, &options));
        cached.push(answer.cached_tokens);
    }
    // The first snapshot is made in the second turn. It stands behind what the last list has in common with the one before.
    assert!(cached[2] > 10 && [cached[0], cached[1], cached[3]] == [0; 3], "{cached:?}");
}

#[test]
fn plain_text_goes_on_behind_its_own_tokens() {
    let (mut engine, options) = (engine(2), options(ChatFormat::Text));
    let mut chat = Chat::default();
    let first = say(&mut chat, &mut engine, "Once upon a time", &options).expect("a turn");
    let second = say(&mut chat, &mut engine, "", &options).expect("a turn");
    let whole = ChatOptions { max_tokens: 12, ..options.clone() };
    let whole = fresh(&mut engine, 1, &[user("Once upon a time")], &whole);
    assert_eq!([&first.ids[..], &second.ids].concat(), whole.ids);
    assert_eq!(first.text + &second.text, whole.text);
    let third = say(&mut chat, &mut engine, "and", &options).expect("a turn");
    let and = text().tokenizer().encode(" and", false).expect("ids").len();
    assert_eq!(third.prompt_tokens, second.prompt_tokens + second.ids.len() + and);
}

#[test]
fn a_turn_that_does_not_fit_changes_nothing() {
    let mut engine = engine(2);
    for format in [ChatFormat::Text, ChatFormat::Template] {
        let options = options(format);
        let mut chat = Chat::default();
        say(&mut chat, &mut engine, "Once upon a time", &options).expect("a turn");
        let before = chat.messages().to_vec();
        let error = say(&mut chat, &mut engine, &"Once ".repeat(500), &options).expect_err("too long");
        assert!(matches!(&error, Error::Prompt { .. }) && error.to_string().contains("the conversation is full"));
        assert_eq!(chat.messages(), before);
        let after = say(&mut chat, &mut engine, "And then?", &options).expect("a turn");
        if format == ChatFormat::Template {
            same(&after, &fresh(&mut engine, 1, &[&before[..], &[user("And then?")]].concat(), &options));
        }
        chat.reset(&mut engine);
    }
}

#[test]
fn events_are_the_answer_and_break_ends_it() {
    let (mut engine, text) = (engine(1), text());
    let options = ChatOptions { stop: vec!["King".into()], max_tokens: 30, ..options(ChatFormat::Text) };
    for most in [usize::MAX, 3] {
        let (mut shown, mut ids, mut read) = (String::new(), vec![], 0);
        let mut on_event = |event| {
            match event {
                ChatEvent::Prefill { done, .. } => read = done,
                ChatEvent::Token { id, text } => {
                    ids.push(id);
                    shown += &text;
                }
                ChatEvent::Rest(text) => shown += &text,
            }
            if ids.len() >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut chat = Chat::default();
        let messages = vec![user("Once upon a time")];
        let answer = block_on(chat.answer(&mut engine, &text, messages, &options, &mut on_event)).expect("answer");
        assert_eq!((&answer.text, &answer.ids, answer.prompt_tokens), (&shown, &ids, read));
        assert_eq!(answer.end, if most == 3 { End::Interrupted } else { End::Stop });
        assert!(!answer.text.contains("King"), "{}", answer.text);
    }
}

/// JavaScript's interface and the page tell the numbers of the core.
#[test]
fn defaults_are_told_alike() {
    let read = |path: &str| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../").to_owned() + path;
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let (types, page, local) = (read("wasm/js/types.ts"), read("web-demo/index.html"), read("wasm/js/local.ts"));
    let usual = defaults::SAMPLING;
    // The comment in front of an option ends with its default; an empty box of the page shows it.
    for (option, id, value) in [
        ("temperature", "temperature", usual.temperature.to_string()),
        ("topK", "top-k", usual.top_k.to_string()),
        ("topP", "top-p", usual.top_p.to_string()),
        ("minP", "min-p", usual.min_p.to_string()),
        ("repetitionPenalty", "penalty", usual.repetition_penalty.to_string()),
        ("maxTokens", "max-tokens", defaults::MAX_TOKENS.to_string()),
    ] {
        let told = |value: &str| types.contains(&format!(" {value}. */\n  {option}?: number;"));
        assert!(told(&value), "types.ts: {option} is {value}");
        assert!(!told(&format!("{value}1")), "negative control");
        assert!(page.contains(&format!(r#"id="{id}" type="number""#)), "the page has a box {id}");
        let (_, tag) = page.split_once(&format!(r#"id="{id}""#)).expect(id);
        let tag = tag.split_once("/>").expect(id).0;
        assert!(tag.contains(&format!(r#"placeholder="{value}""#)) && !tag.contains("value="), "{tag}");
        // The package leaves them to the core.
        assert!(local.contains(&format!("options.{option} ?? null,")), "local.ts: {option}");
    }
    assert!(types.contains(&format!("Default {}, or what the model allows. */\n  context?", defaults::CONTEXT)));
}
