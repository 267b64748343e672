//! `nemoflash chat`: a conversation turn by turn, with a line editor on a terminal and plain lines in a pipe.

use crate::answer::Show;
use crate::args::{self, Common};
use crate::interrupt::{self, Idle};
use crate::report::{Exit, print_error};
use crate::{generate, lines, open, terminal};
use anyhow::{Result, anyhow};
use etcetera::BaseStrategy as _;
use nemoflash::{Chat, ChatFormat, End, Error, defaults};
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
/// See [`open`] and [`Chat::say`]. If a turn cannot be put to the model, for example because it does not fit into the context,
/// the error is printed and the chat goes on, because `/reset` may follow. The exit code is then 1, but 0 with the line editor.
pub async fn run(common: &Common, args: &args::Chat) -> Result<Exit> {
    args.writing.options().sampling(&defaults::SAMPLING).validate()?;
    let (opened, text, options) = open::to_write(common, &args.writing, true).await?;
    let plain = options.format == Some(ChatFormat::Text);
    let open::Opened { mut engine, adapter, name, load } = opened;
    let mut chat = Chat::new(0, args.writing.beginning());
    let mut input = Input::open(common.json)?;
    interrupt::install(if input.is_editor() { Idle::Editor } else { Idle::Exit })?;
    if terminal::watched() && input.is_editor() {
        let what = match plain {
            true => "Write the beginning of a text, and the model continues it. An empty line continues it further.",
            false => "Ask something.",
        };
        terminal::note(&format!("{name} on {adapter}. {what} /help for help, Ctrl-D to leave."));
    }
    let (mut json_load, mut failed) = (Some(load), false);
    while let Some(line) = input.next()? {
        match line.trim() {
            "/exit" | "/quit" => break,
            "/help" => terminal::note(HELP),
            "/reset" => {
                chat.reset(&mut engine);
                terminal::note("[a new conversation]");
            }
            // In plain text, an empty line lets the model continue its text.
            "" if !plain || !chat.has_begun() => {}
            // Any other text that begins with a slash is a turn: `/no_think` means something to a model, `/etc/passwd` is a
            // path.
            _ => {
                let mut show = |text: &str| if common.json { Ok(()) } else { terminal::print(text) };
                let mut shown = Show::begin(&mut show);
                let mut on_event = |event| shown.on_event(event);
                let turn = chat.say(&mut engine, &text, &line, &options, &mut on_event).await;
                let answer = match shown.end(turn) {
                    Ok(answer) => answer,
                    Err(error) if is_prompt(&error) => {
                        print_error(&error);
                        if common.json {
                            let row =
                                serde_json::json!({ "error": error.to_string(), "code": "prompt", "model": name });
                            terminal::print(&format!("{row}\n"))?;
                        }
                        failed = true;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if common.json {
                    let load = json_load.take().unwrap_or(Duration::ZERO);
                    let line = generate::json(&answer, &name, &adapter, load, options.seed);
                    terminal::print(&format!("{line}\n"))?;
                } else {
                    terminal::print("\n")?;
                    if terminal::watched() {
                        terminal::note(&answer.speed(None, &adapter, options.seed));
                    }
                }
                if answer.said.end == End::Interrupted && !input.is_editor() {
                    return Ok(Exit::Interrupted);
                }
            }
        }
    }
    input.close();
    // A person at the line editor has seen the error.
    Ok(if failed && !input.is_editor() { Exit::Failed } else { Exit::Done })
}

fn is_prompt(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Prompt { .. }))
}

/// Where the user's turns come from.
enum Input {
    /// A line editor on the terminal, and the file that keeps its history, if that file can be written.
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
        // If this fails, the chat still works. But a program that is killed then leaves the terminal in the editor's mode.
        #[cfg(unix)]
        let _ = interrupt::give_terminal_back();
        let history = history_file().filter(|path| {
            // A first run has no file to load. The history is used if the file can be written.
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
            // The chat does not fail at its end because the history cannot be written.
            let _ = editor.save_history(path);
        }
    }
}

fn editor(error: ReadlineError) -> anyhow::Error {
    anyhow!("cannot read from the terminal: {error}. Pipe the turns in instead, one on each line")
}

/// The path of the history file, in the platform's folder for state.
fn history_file() -> Option<PathBuf> {
    let folders = etcetera::choose_base_strategy().ok()?;
    let folder = folders.state_dir().unwrap_or_else(|| folders.data_dir()).join("nemoflash");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history.txt"))
}
