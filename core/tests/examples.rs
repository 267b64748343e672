//! The examples run, and what they say is right.

#[path = "../examples/chat.rs"]
mod chat;
#[path = "../examples/story.rs"]
mod story;

use nemoflash::{ChatFormat, ChatOptions, Error, Exec, Generator};
use pollster::block_on;
use std::fs::File;
use std::io::{Cursor, Error as IoError, ErrorKind};
use std::path::Path;

const FABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fables");

fn greedy(max_tokens: u32) -> ChatOptions {
    ChatOptions { temperature: Some(0.0), max_tokens, ..Default::default() }
}

#[test]
fn a_story() {
    let mut text = String::new();
    block_on(story::story(Path::new(FABLES), &greedy(24), |piece| text += piece)).expect("a story");
    // The beginning of the reference's greedy text.
    assert!(text.starts_with(", and then he went to the King and said"), "{text}");
}

#[test]
fn a_conversation() {
    let mut text = String::new();
    let options = ChatOptions { format: Some(ChatFormat::Instruct), ..greedy(24) };
    block_on(chat::chat(Path::new(FABLES), &options, &b"Who are you?\nAnd you?\n"[..], |piece| text += piece))
        .expect("a chat");
    // One turn after the other, and not two conversations.
    let mut alone = String::new();
    block_on(chat::chat(Path::new(FABLES), &options, &b"And you?\n"[..], |piece| alone += piece)).expect("a chat");
    assert!(text.len() > alone.len() + 10, "two answers: {text}");
    assert!(alone.len() > 10 && !text.ends_with(&alone), "{text}");
}

/// Files need not be on a disk, and every failure names its file.
#[test]
fn files_are_the_callers() {
    let read = |name: &str| std::fs::read(Path::new(FABLES).join(name));
    let mut model = block_on(Generator::open(Exec::cpu(), |name| read(name).map(Cursor::new))).expect("from memory");
    let answer = block_on(model.generate("Once upon a time", &greedy(4), |_| {})).expect("an answer");
    assert_eq!(answer.ids.len(), 4);
    for (missing, told) in
        [("config.json", "config.json"), ("tokenizer.json", "tokenizer.json"), ("model.safetensors", "index.json")]
    {
        let open = |name: &str| match name == missing {
            true => Err(IoError::from(ErrorKind::NotFound)),
            false => File::open(Path::new(FABLES).join(name)),
        };
        let error = block_on(Generator::open(Exec::cpu(), open)).expect_err(missing);
        assert!(matches!(&error, Error::File { .. }) && error.to_string().contains(told), "{error}");
        assert_eq!(error.code(), "file");
    }
    // What cannot be read is not absent, though this file need not be there.
    let open = |name: &str| match name {
        "generation_config.json" => Err(IoError::from(ErrorKind::PermissionDenied)),
        _ => File::open(Path::new(FABLES).join(name)),
    };
    let error = block_on(Generator::open(Exec::cpu(), open)).expect_err("denied");
    assert!(error.to_string().starts_with("generation_config.json: permission denied"), "{error}");
}
