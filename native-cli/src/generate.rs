//! `nemoflash generate`: continues a text, or answers one question.

use crate::answer::{Answer, Show};
use crate::args::{Common, Generate};
use crate::interrupt::{self, Idle};
use crate::report::{Exit, Usage};
use crate::{lines, open, terminal};
use anyhow::Result;
use nemoflash::{Chat, ChatFormat, End, Error, Message, Role, defaults};
use std::io::{self, IsTerminal as _};
use std::time::Duration;

/// Runs the command.
///
/// # Errors
/// See [`open`], [`lines`] and [`Chat::answer`].
pub async fn run(common: &Common, args: &Generate) -> Result<Exit> {
    args.writing.options().sampling(&defaults::SAMPLING).validate()?;
    // The prompt is read before the model loads, so that a missing prompt is reported at once.
    let prompt = match args.prompt.as_deref() {
        Some(text) if text != "-" => text.to_owned(),
        None if io::stdin().is_terminal() => {
            let next = "Write `nemoflash \"Once upon a time\"`, pipe a text in, or try `nemoflash chat`";
            return Err(Usage(format!("there is no prompt. {next}")).into());
        }
        _ => lines::whole(&mut io::stdin().lock())?,
    };
    if prompt.is_empty() {
        let why = "it is empty, and a model needs a beginning to continue".into();
        return Err(Error::Prompt { why, next: "Write one, such as `nemoflash \"Once upon a time\"`" }.into());
    }
    let (mut opened, text, options) = open::to_write(common, &args.writing, false).await?;
    let mut messages = args.writing.beginning();
    messages.push(Message::new(Role::User, prompt.as_str()));
    interrupt::install(Idle::Exit)?;
    if options.format == Some(ChatFormat::Text) && !common.json && io::stdout().is_terminal() {
        terminal::print(&prompt)?;
    }
    let mut show = |text: &str| if common.json { Ok(()) } else { terminal::print(text) };
    let mut shown = Show::begin(&mut show);
    let mut on_event = |event| shown.on_event(event);
    let turn = Chat::default().answer(&mut opened.engine, &text, messages, &options, &mut on_event).await;
    let (answer, seed) = (shown.end(turn)?, options.seed);
    if common.json {
        terminal::print(&format!("{:#}\n", json(&answer, &opened.name, &opened.adapter, opened.load, seed)))?;
    } else {
        if !answer.said.text.ends_with('\n') {
            terminal::print("\n")?;
        }
        terminal::note(&answer.speed(Some(opened.load), &opened.adapter, seed));
    }
    Ok(if answer.said.end == End::Interrupted { Exit::Interrupted } else { Exit::Done })
}

/// The answer as one JSON object.
pub fn json(answer: &Answer, model: &str, adapter: &str, load: Duration, seed: u64) -> serde_json::Value {
    serde_json::json!({
        "text": answer.said.text,
        "tokens": answer.said.ids.len(),
        "ids": answer.said.ids,
        "stop_reason": answer.said.end,
        "seed": seed,
        "model": model,
        "adapter": adapter,
        "timings": answer.timings(load),
    })
}
