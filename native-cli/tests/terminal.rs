//! On a terminal: the chat's editor, its history, and Ctrl-C.
#![cfg(unix)]
#![forbid(unsafe_code)]

use crate::common::nemoflash;
use rexpect::process::{Signal, WaitStatus};
use rexpect::session::{PtySession, spawn_command};
use std::path::Path;
use std::process::Stdio;

/// On the CPU, in a terminal of 200 columns, with its history in `state`.
fn start(state: &Path, arguments: &[&str]) -> PtySession {
    let mut command = nemoflash(&[arguments, &["--device", "cpu"]].concat());
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    command.env("XDG_STATE_HOME", state).env("TERM", "xterm").env("COLUMNS", "200");
    spawn_command(command, Some(60_000)).unwrap()
}

fn code(session: &PtySession) -> Option<i32> {
    match session.process().wait() {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ctrl_c_stops_the_answer_and_not_the_chat() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = start(state.path(), &["chat", "--temperature", "0", "--max-tokens", "4000"]);
    chat.exp_string("/help for help").unwrap();
    chat.exp_string("> ").unwrap();
    chat.send_line("Once upon a time").unwrap();
    chat.exp_string("King").unwrap();
    chat.send_control('c').unwrap();
    chat.exp_string("interrupted").unwrap();
    // The chat goes on, and so does the answer.
    chat.exp_string("> ").unwrap();
    chat.send_line("").unwrap();
    chat.exp_string("King").unwrap();
    chat.send_control('c').unwrap();
    chat.exp_string("interrupted").unwrap();
    chat.exp_string("> ").unwrap();
    chat.send_line("/exit").unwrap();
    chat.exp_eof().unwrap();
    assert_eq!(code(&chat), Some(0));
}

#[test]
fn commands_and_history() {
    let state = tempfile::tempdir().unwrap();
    let options = ["chat", "--temperature", "0", "--max-tokens", "3"];
    let mut chat = start(state.path(), &options);
    chat.exp_string("> ").unwrap();
    chat.send_line("/help").unwrap();
    chat.exp_string("forget the conversation").unwrap();
    chat.send_line("/reset").unwrap();
    chat.exp_string("a new conversation").unwrap();
    chat.send_line("Once upon a time").unwrap();
    chat.exp_string("answer 3 tokens").unwrap();
    chat.exp_string("> ").unwrap();
    // At the prompt, Ctrl-C takes the line away, and the second one leaves.
    chat.send("half a line").unwrap();
    chat.flush().unwrap();
    chat.exp_string("half a line").unwrap();
    chat.send_control('c').unwrap();
    chat.exp_string("Ctrl-C again").unwrap();
    chat.send_control('c').unwrap();
    chat.exp_eof().unwrap();
    assert_eq!(code(&chat), Some(0));

    let kept = std::fs::read_to_string(state.path().join("nemoflash/history.txt")).unwrap();
    assert!(kept.contains("Once upon a time") && !kept.contains("half a line"), "{kept}");
    let mut chat = start(state.path(), &options);
    chat.exp_string("> ").unwrap();
    // Up: the last turn of the last chat.
    chat.send("\x1b[A").unwrap();
    chat.flush().unwrap();
    chat.exp_string("Once upon a time").unwrap();
    chat.send_control('u').unwrap();
    chat.send_control('d').unwrap();
    chat.exp_eof().unwrap();
    assert_eq!(code(&chat), Some(0));
}

/// Whether the terminal gives lines, as a shell needs it; a line editor takes every key.
fn gives_lines(session: &PtySession) -> bool {
    let terminal = session.process().get_file_handle().unwrap();
    rustix::termios::tcgetattr(&terminal).unwrap().local_modes.contains(rustix::termios::LocalModes::ICANON)
}

#[test]
fn a_chat_that_is_told_to_end_gives_the_terminal_back() {
    let state = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut chat = start(state.path(), &["chat", "--max-tokens", "3"]);
        chat.exp_string("> ").unwrap();
        // Negative control: at the prompt it does not give lines.
        while gives_lines(&chat) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        chat.process_mut().signal(signal).unwrap();
        chat.exp_string("\x1b[?2004l").unwrap();
        match chat.process().wait() {
            Ok(WaitStatus::Signaled(_, by, _)) => assert_eq!(by, signal),
            other => panic!("{other:?}"),
        }
        assert!(gives_lines(&chat), "after {signal}");
    }
}

#[test]
fn pasted_text_may_have_several_lines() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = start(state.path(), &["chat", "--temperature", "0", "--max-tokens", "3"]);
    chat.exp_string("> ").unwrap();
    chat.send_line("\x1b[200~Once upon\na time\x1b[201~").unwrap();
    // One turn of both lines: a second one would answer again.
    chat.exp_string("answer 3 tokens").unwrap();
    chat.send_line("/exit").unwrap();
    let rest = chat.exp_eof().unwrap();
    assert!(!rest.contains("answer"), "{rest}");
    let kept = std::fs::read_to_string(state.path().join("nemoflash/history.txt")).unwrap();
    assert!(kept.contains("Once upon\\na time"), "{kept}");
}

#[test]
fn a_full_conversation_says_so_and_goes_on_after_reset() {
    let state = tempfile::tempdir().unwrap();
    let mut chat = start(state.path(), &["chat", "--temperature", "0", "--context", "12", "--max-tokens", "50"]);
    chat.exp_string("> ").unwrap();
    chat.send_line("Once upon a time").unwrap();
    chat.exp_string("the context is full").unwrap();
    chat.send_line("and then").unwrap();
    chat.exp_string("error: prompt: the conversation is full").unwrap();
    chat.send_line("/reset").unwrap();
    chat.exp_string("a new conversation").unwrap();
    chat.send_line("Once").unwrap();
    chat.exp_string("the context is full").unwrap();
    chat.send_line("/exit").unwrap();
    chat.exp_eof().unwrap();
    assert_eq!(code(&chat), Some(0));
}

#[test]
fn a_history_that_cannot_be_kept_is_no_obstacle() {
    let mut chat = start(Path::new("/dev/null"), &["chat", "--max-tokens", "3"]);
    chat.exp_string("> ").unwrap();
    chat.send_line("Once").unwrap();
    chat.exp_string("answer 3 tokens").unwrap();
    chat.send_control('d').unwrap();
    chat.exp_eof().unwrap();
    assert_eq!(code(&chat), Some(0));
}

#[test]
fn generate_shows_the_prompt_and_stops_at_ctrl_c() {
    let state = tempfile::tempdir().unwrap();
    let mut run = start(state.path(), &["Once upon a time", "--temperature", "0", "--max-tokens", "4000"]);
    run.exp_string("Once upon a time, and then").unwrap();
    run.send_control('c').unwrap();
    run.exp_string("interrupted").unwrap();
    run.exp_eof().unwrap();
    assert_eq!(code(&run), Some(130));
}

#[test]
fn a_forgotten_prompt_is_asked_for() {
    let state = tempfile::tempdir().unwrap();
    let mut run = start(state.path(), &[]);
    run.exp_string("error: there is no prompt").unwrap();
    run.exp_eof().unwrap();
    assert_eq!(code(&run), Some(2));
}
