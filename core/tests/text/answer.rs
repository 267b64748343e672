//! What ends an answer, and what of it is shown.

use nemoflash::{
    ChatFiles, ChatFormat, ChatOptions, Config, End, ModelText, TemplateOptions, TextFiles, Tokenizer, Until, Writer,
};
use serde_json::json;

use super::chat::{CHATML, THINK, with_tokens};
use super::{fables, fables_json, ours};

const CONFIG: &[u8] = include_bytes!("../../../models/fables/config.json");

/// fables with ChatML's tokens, and one that is not special.
fn file() -> Vec<u8> {
    let mut file = fables_json();
    let tokens = file["added_tokens"].as_array_mut().expect("a list");
    for (id, content, special) in [(4096, "<|im_start|>", true), (4097, "<|im_end|>", true), (4098, "<|turn|>", false)]
    {
        tokens.push(json!({"id": id, "content": content, "special": special, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false}));
    }
    file.to_string().into_bytes()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(&file()).expect("a tokenizer")
}

/// Everything that is shown of these tokens, how many of them were taken, and what ended the answer.
fn shown(mut writer: Writer, ids: &[u32]) -> (String, usize, Option<End>) {
    let (mut text, mut taken) = (String::new(), 0);
    for &id in ids {
        text += &writer.push(id);
        taken += 1;
        if writer.end().is_some() {
            break;
        }
    }
    let end = writer.end();
    (text + &writer.finish().0, taken, end)
}

/// The ids of a text that may spell special tokens.
fn ids(text: &str) -> Vec<u32> {
    tokenizer().encode_trusted(text).expect("ids")
}

#[test]
fn stop_texts_see_special_tokens_that_are_not_shown() {
    let t = tokenizer();
    let answer = |stop: &str, text: &str| {
        let until = Until { max_tokens: 100, eos: vec![], stops: vec![stop.into()] };
        shown(Writer::new(&t, until).expect("a writer"), &ids(text))
    };
    let said = "Blue sky<|im_end|>\n<|im_start|>user";
    for stop in ["<|im_end|>", "<|im_end|>\n", "sky<|im_end|>\n<|im_start|>", "<|im_end|>\n<|im_start|>user"] {
        let (text, _, end) = answer(stop, said);
        let before = if stop.starts_with("sky") { "Blue " } else { "Blue sky" };
        assert_eq!((text.as_str(), end), (before, Some(End::Stop)), "{stop}");
    }
    // What only looked like the beginning of a stop text is shown, the special token is not.
    let all = ids(said).len();
    for stop in ["<|im_end|>\n\n", "nothing", "<|im_end|><|im_start|>"] {
        assert_eq!(answer(stop, said), ("Blue sky\nuser".to_owned(), all, None), "{stop}");
    }
    // A stop text that the model writes letter by letter is one too.
    let letters = t.encode("Blue<|im_end|>sky", false).expect("ids");
    assert!(!letters.contains(&4097), "negative control: no token of its own");
    let until = Until { max_tokens: 100, eos: vec![], stops: vec!["<|im_end|>".into()] };
    assert_eq!(shown(Writer::new(&t, until).expect("a writer"), &letters).0, "Blue");
}

#[test]
fn ids_without_a_token_have_no_text() {
    let t = fables();
    let until = Until { max_tokens: 100, eos: vec![3], stops: vec!["King".into()] };
    let word = t.encode("Hello", false).expect("ids");
    let answer = [&word[..], &[4096, 151_935, u32::MAX], &word, &[3]].concat();
    let (text, taken, end) = shown(Writer::new(&t, until).expect("a writer"), &answer);
    assert_eq!((text.as_str(), taken, end), ("HelloHello", answer.len(), Some(End::Eos)));
}

/// The text side of a model with this chat template.
fn model(template: &str) -> ModelText {
    let chat = ChatFiles { chat_template_jinja: Some(template.as_bytes()), ..Default::default() };
    ModelText::new(&TextFiles { name: "m", tokenizer_json: &file(), chat, ..Default::default() }).expect("a text side")
}

#[test]
fn a_turn_ends_where_its_template_ends_it() {
    let t = tokenizer();
    let end =
        |template: &str| with_tokens(template).turn_end(&t, &TemplateOptions::default()).and_then(|id| t.token(id));
    let each = |body: &str| format!("{{% for m in messages %}}{body}{{% endfor %}}");
    let cases = [
        (CHATML.to_owned(), Some("<|im_end|>")),
        (THINK.to_owned(), Some("<|im_end|>")),
        (each("<s>{{ m.role }}\n{{ m.content|trim }}\n</s>\n"), Some("</s>")),
        // A turn that only the next one ends.
        (each("<|im_start|>{{ m.role }}\n{{ m.content }}\n"), Some("<|im_start|>")),
        // A token that the files do not call special.
        (each("{{ m.role }}: {{ m.content }}<|turn|>"), Some("<|turn|>")),
        // Refuses a conversation that ends with a question, unless it is asked to answer.
        (
            each("{{ m.content }}</s>") + "{% if messages|length is odd %}{{ raise_exception('no') }}{% endif %}",
            Some("</s>"),
        ),
        (each("{{ m.role }}: {{ m.content }}\n"), None),
        (each("{% if m.role == 'user' %}{{ m.content }}</s>{% endif %}"), None),
        ("{{ raise_exception('only poems') }}".to_owned(), None),
        (String::new(), None),
    ];
    for (template, want) in &cases {
        assert_eq!(end(template).as_deref(), *want, "{template}");
    }
    // Without ChatML's tokens the text is that of the template, but no token ends it.
    let plain = ours(&fables_json()).expect("a tokenizer");
    assert_eq!(with_tokens(CHATML).turn_end(&plain, &TemplateOptions::default()), None);

    // In the template's format alone, and beside the ends that config.json names.
    let config = Config::parse(CONFIG).expect("a config");
    let text = model(CHATML);
    for (format, taken) in [(Some(ChatFormat::Template), 3), (None, 3), (Some(ChatFormat::Text), 6)] {
        let options = ChatOptions { format, max_tokens: 100, ..Default::default() };
        let writer = text.writer(&config, &options).expect("a writer");
        let said = [&ids("a b<|im_end|>")[..], &[4096, 5, 3, 5]].concat();
        assert_eq!(ids("a b").len(), 2);
        let (_, got, end) = shown(writer, &said);
        assert_eq!((got, end), (taken, Some(End::Eos)), "{format:?}");
    }
}
