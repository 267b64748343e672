//! `nemoflash generate`: continue a text, or answer one question.

use crate::answer::{Answer, answer};
use crate::args::{Common, Format, Generate};
use crate::interrupt::{self, Idle};
use crate::report::{Exit, Usage};
use crate::{lines, open, terminal};
use anyhow::Result;
use nemoflash::{End, Error, Message, Role, Transcript};
use std::io::{self, IsTerminal as _};
use std::time::Duration;

/// Runs the command.
///
/// # Errors
/// See [`open`], [`lines`] and [`answer`](mod@crate::answer).
pub async fn run(common: &Common, args: &Generate) -> Result<Exit> {
    let sampling = args.writing.sampling();
    sampling.validate()?;
    // The prompt comes first: whoever forgot it should not wait for the model.
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
    let (mut opened, tokenizer, style) = open::to_write(common, &args.writing, false).await?;
    let mut messages = style.beginning();
    messages.push(Message::new(Role::User, prompt.as_str()));
    let ids = style.ids(&tokenizer, &messages)?;
    interrupt::install(Idle::Exit)?;
    if style.format == Format::Text && !common.json && io::stdout().is_terminal() {
        terminal::print(&prompt)?;
    }
    let mut show = |text: &str| if common.json { Ok(()) } else { terminal::print(text) };
    let until = style.until(opened.engine.config(), &args.writing);
    let answer =
        answer(&mut opened.engine, &tokenizer, &mut Transcript::default(), &sampling, &ids, &until, &mut show).await?;
    if common.json {
        terminal::print(&format!("{:#}\n", json(&answer, &opened.name, &opened.adapter, opened.load, sampling.seed)))?;
    } else {
        if !answer.text.ends_with('\n') {
            terminal::print("\n")?;
        }
        terminal::note(&answer.speed(Some(opened.load), &opened.adapter, sampling.seed));
    }
    Ok(if answer.end == End::Interrupted { Exit::Interrupted } else { Exit::Done })
}

/// The answer as one JSON object.
pub fn json(answer: &Answer, model: &str, adapter: &str, load: Duration, seed: u64) -> serde_json::Value {
    serde_json::json!({
        "text": answer.text,
        "tokens": answer.ids.len(),
        "ids": answer.ids,
        "stop_reason": answer.end,
        "seed": seed,
        "model": model,
        "adapter": adapter,
        "timings": answer.timings(load),
    })
}
