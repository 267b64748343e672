//! `nemoflash chat`: turn by turn, with a line editor on a terminal and plain lines in a pipe.

use crate::args::{Chat, Common, Format};
use crate::conversation::Conversation;
use crate::interrupt::{self, Idle};
use crate::report::{Exit, print_error};
use crate::{generate, lines, open, terminal};
use anyhow::{Result, anyhow};
use etcetera::BaseStrategy as _;
use nemoflash::{End, Error};
use rustyline::error::ReadlineError;
use rustyline::{Behavior, Config, DefaultEditor};
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

const HELP: &str = "\
/help   show this
/reset  forget the conversation and begin a new one
/exit   leave (also Ctrl-D, or Ctrl-C twice)
Ctrl-C stops an answer. Pasted text may have several lines.";

/// Runs the command.
///
/// # Errors
/// See [`open`] and [`Conversation`]; a text that does not fit is one only where nobody sits at the terminal.
pub async fn run(common: &Common, args: &Chat) -> Result<Exit> {
    args.writing.sampling().validate()?;
    let (opened, tokenizer, style) = open::to_write(common, &args.writing, true).await?;
    let format = style.format;
    let open::Opened { engine, adapter, name, load } = opened;
    let mut conversation = Conversation::new(engine, tokenizer, style, &args.writing)?;
    let mut input = Input::open(common.json)?;
    interrupt::install(if input.is_editor() { Idle::Editor } else { Idle::Exit })?;
    if terminal::watched() && input.is_editor() {
        let what = match format {
            Format::Text => "Write the beginning of a text; the model goes on. An empty line lets it go on again.",
            Format::Instruct | Format::Template => "Ask something.",
        };
        terminal::note(&format!("{name} on {adapter}. {what} /help for help, Ctrl-D to leave."));
    }
    let mut json_load = Some(load);
    while let Some(text) = input.next()? {
        match text.trim() {
            "/exit" | "/quit" => break,
            "/help" => terminal::note(HELP),
            "/reset" => {
                conversation.reset();
                terminal::note("[a new conversation]");
            }
            "" if !conversation.can_go_on() => {}
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                terminal::note(&format!("there is no command {command}; /help lists them"));
            }
            _ => {
                let mut show = |text: &str| if common.json { Ok(()) } else { terminal::print(text) };
                let answer = match conversation.turn(&text, &mut show).await {
                    Ok(answer) => answer,
                    Err(error) if input.is_editor() && is_prompt(&error) => {
                        print_error(&error);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if common.json {
                    let load = json_load.take().unwrap_or(Duration::ZERO);
                    let line = generate::json(&answer, &name, &adapter, load, conversation.seed());
                    terminal::print(&format!("{line}\n"))?;
                } else {
                    terminal::print("\n")?;
                    if terminal::watched() {
                        terminal::note(&answer.speed(None, &adapter, conversation.seed()));
                    }
                }
                if answer.end == End::Interrupted && !input.is_editor() {
                    return Ok(Exit::Interrupted);
                }
            }
        }
    }
    input.close();
    Ok(Exit::Done)
}

fn is_prompt(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Prompt { .. }))
}

/// Where the user's turns come from.
enum Input {
    /// A terminal, and the file that keeps its history, if it can be written.
    Editor(Box<DefaultEditor>, Option<PathBuf>),
    Lines,
}

impl Input {
    fn open(json: bool) -> Result<Input> {
        if json || !io::stdin().is_terminal() {
            return Ok(Input::Lines);
        }
        // The editor talks to the terminal itself, so stdout may be a file.
        let config = Config::builder().behavior(Behavior::PreferTerm).auto_add_history(true).max_history_size(1000);
        let config = config.map(rustyline::config::Builder::build).map_err(editor)?;
        let mut editor_ = DefaultEditor::with_config(config).map_err(editor)?;
        let history = history_file().filter(|path| {
            // A first run has no file to load; what matters is whether one can be written.
            let _ = editor_.load_history(path);
            editor_.save_history(path).is_ok()
        });
        Ok(Input::Editor(Box::new(editor_), history))
    }

    fn is_editor(&self) -> bool {
        matches!(self, Input::Editor(..))
    }

    /// The next turn, or `None` when the user leaves.
    fn next(&mut self) -> Result<Option<String>> {
        let Input::Editor(editor_, _) = self else { return lines::next(&mut io::stdin().lock()) };
        let mut again = false;
        loop {
            match editor_.readline("> ") {
                Ok(line) => return Ok(Some(line)),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(ReadlineError::Interrupted) if again => return Ok(None),
                Err(ReadlineError::Interrupted) => {
                    again = true;
                    terminal::note("(Ctrl-C again or Ctrl-D to leave)");
                }
                Err(error) => return Err(editor(error)),
            }
        }
    }

    fn close(&mut self) {
        if let Input::Editor(editor, Some(path)) = self {
            // A history that cannot be kept is no reason to fail at the end.
            let _ = editor.save_history(path);
        }
    }
}

fn editor(error: ReadlineError) -> anyhow::Error {
    anyhow!("cannot read from the terminal: {error}. Pipe the turns in instead, one on each line")
}

/// The history's place in the platform's state folder.
fn history_file() -> Option<PathBuf> {
    let folders = etcetera::choose_base_strategy().ok()?;
    let folder = folders.state_dir().unwrap_or_else(|| folders.data_dir()).join("nemoflash");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history.txt"))
}
