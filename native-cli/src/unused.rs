//! Refuses options that a command would ignore, because whoever gives an option expects that it does something.

use crate::args::Generate;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, Error};

/// Those common options that choose the model and the format of its weights.
const MODEL: [&str; 6] = ["model", "arch", "weights", "keep_logits", "revision", "accept_license"];
/// Those common options that say where and how the model runs.
const RUN: [&str; 7] = ["device", "backend", "adapter", "deny", "kv", "scan", "context"];

/// The common options that this command ignores.
fn ignored(name: &str) -> Vec<&'static str> {
    match name {
        "devices" => [&MODEL[..], &RUN].concat().into_iter().filter(|id| *id != "backend").collect(),
        "compare" | "completions" | "man" => [&MODEL[..], &RUN].concat(),
        // `verify` reads only the files.
        "verify" => [&["arch", "weights", "keep_logits", "accept_license"][..], &RUN].concat(),
        // `doctor` asks the built-in model and the one of `--model` only for a few tokens.
        "doctor" => vec!["arch", "context"],
        // Folders are written without a device, and `--bits` says how.
        "quantize" => [&["arch", "weights", "keep_logits"][..], &RUN].concat(),
        "synthesize" => [&["model", "weights", "keep_logits", "revision", "accept_license"][..], &RUN].concat(),
        // `profile` makes its own stacks.
        "profile" => vec!["model", "arch", "revision", "accept_license"],
        _ => vec![],
    }
}

/// Refuses options that would do nothing: options of `generate` in front of another command, and options of every command that
/// this command ignores.
///
/// # Errors
/// Names the first such option.
pub fn refuse(command: &mut Command, matches: &ArgMatches) -> Result<(), Error> {
    let Some(name) = matches.subcommand_name() else { return Ok(()) };
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let own = Generate::augment_args(Command::new("generate"));
    let why = if let Some(arg) = own.get_arguments().find(|arg| given(arg.get_id().as_str())) {
        let what = arg.get_long().map_or("a prompt".to_owned(), |long| format!("`--{long}`"));
        format!("{what} in front of `{name}` has no effect; write it after `{name}`, or leave it out")
    } else if let Some(id) = ignored(name).into_iter().find(|id| given(id)) {
        let next = match (name, id) {
            ("quantize", "weights") => "Use --bits 8 or --bits 4",
            _ => "Leave it out",
        };
        format!("`--{}` has no effect on `{name}`. {next}", id.replace('_', "-"))
    } else {
        return Ok(());
    };
    Err(command.error(ErrorKind::ArgumentConflict, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<(), Error> {
        let mut command = Cli::command();
        let words = ["nemoflash"].into_iter().chain(line.split_whitespace());
        let matches = command.try_get_matches_from_mut(words)?;
        refuse(&mut command, &matches)
    }

    /// Every option of every command, with a value.
    const OPTIONS: [&str; 13] = [
        "--model x",
        "--arch qwen3-0.6b",
        "--weights q4",
        "--keep-logits",
        "--revision main",
        "--accept-license",
        "--device cpu",
        "--backend gl",
        "--adapter 0",
        "--deny f16",
        "--kv f32",
        "--scan serial",
        "--context 9",
    ];

    /// Which of these each command takes, in their order; `--json` and `--verbose` go with all.
    #[test]
    fn what_a_command_ignores_is_refused() {
        for (name, line, takes) in [
            ("generate", "generate x", "1111111111111"),
            ("chat", "chat", "1111111111111"),
            ("explain", "explain", "1111111111111"),
            ("logits", "logits --ids 1 --out x", "1111111111111"),
            ("perplexity", "perplexity --text x", "1111111111111"),
            ("bench", "bench", "1111111111111"),
            ("quantize", "quantize x", "1000110000000"),
            ("synthesize", "synthesize x", "0100000000000"),
            ("doctor", "doctor", "1011111111110"),
            ("profile", "profile operators", "0011001111111"),
            ("verify", "verify", "1000100000000"),
            ("devices", "devices", "0000000100000"),
            ("compare", "compare x", "0000000000000"),
            ("completions", "completions bash", "0000000000000"),
            ("man", "man", "0000000000000"),
        ] {
            assert!(parse(&format!("{line} --json --verbose")).is_ok(), "{name}");
            for (option, takes) in OPTIONS.iter().zip(takes.chars()) {
                // Options of every command may stand on either side of it.
                for line in [format!("{line} {option}"), format!("{option} {line}")] {
                    assert_eq!(parse(&line).is_ok(), takes == '1', "{line}");
                }
            }
        }
        // A new command, or a new option of every command, needs its place in the table.
        let command = Cli::command();
        assert_eq!(command.get_subcommands().count(), 15);
        let globals = command.get_arguments().filter(|arg| arg.is_global_set()).count();
        assert_eq!(globals, OPTIONS.len() + 2, "--json and --verbose beside these");
        assert_eq!(globals, MODEL.len() + RUN.len() + 2);
    }

    #[test]
    fn what_bench_ignores_is_refused() {
        for line in ["bench --page x", "bench paper -p 8", "bench paper --pg 1,2", "bench -o md --json"] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in ["bench --page x --browser", "bench paper -n 8", "bench -p 8 --pg 1,2"] {
            parse(line).unwrap();
        }
    }
}
