//! The command line.

mod writing;

pub use writing::{Writing, whole};

use crate::arch::{self, Arch};
use crate::bench::Bench;
use crate::hub::is_revision;
use crate::logits::Logits;
use crate::manual::{Completions, Man};
use crate::profile::Profile;
use crate::report::EXIT_CODES;
use crate::unused;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use nemoflash::{Deny, GpuOptions, Kv, LoadOptions, Quant, Scan, defaults};
use std::path::PathBuf;

const USAGE: &str = "nemoflash [OPTIONS] [PROMPT]\n       nemoflash COMMAND [OPTIONS]";
const EXAMPLES: &str = "\
Examples:
  nemoflash \"Once upon a time\"                      tell a story with the built-in model
  nemoflash --seed 7 \"Once upon a time\"             the same story every time
  echo \"Once upon a time\" | nemoflash > story.txt   only the continuation, for scripts
  nemoflash chat --model ./Nemotron-Flash-3B-Instruct
  nemoflash chat --model nvidia/Nemotron-Flash-3B-Instruct   the same, downloaded from the Hugging Face hub
  nemoflash --model ./Nemotron-Flash-3B-Instruct --format instruct \"Why is the sky blue?\"
  nemoflash devices                                 list the GPUs

Downloads go to the Hugging Face cache and obey HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and
HF_HUB_DOWNLOAD_TIMEOUT.";

/// Runs Nemotron-Flash hybrid language models, and dense Qwen3, on any GPU.
///
/// Without a command, `nemoflash PROMPT` means `nemoflash generate PROMPT`. The text goes to stdout, and everything else to
/// stderr. Without --model, the built-in model `fables` runs, which tells fairy tales.
#[derive(Debug, Parser)]
#[command(name = "nemoflash", version, max_term_width = 110, override_usage = USAGE, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    #[command(flatten)]
    pub generate: Generate,
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Continue a text (the default command)
    #[command(after_help = EXIT_CODES)]
    Generate(Generate),
    /// Talk to a model, or write a story together with it
    ///
    /// On a terminal, a line editor reads your turns. Otherwise, each line of stdin is a turn. The commands are /help, /reset
    /// and /exit; any other text that begins with a slash is an ordinary turn. With --json, each line of stdin is a turn and
    /// gives a line of JSON: the answer, or an object with `error` if the turn does not fit. The chat then goes on, and the
    /// exit code is 1.
    #[command(after_help = EXIT_CODES)]
    Chat(Chat),
    /// Compare results of `bench`, from any machines
    ///
    /// The files hold JSON or JSON lines. The output is a table with a line for each test and a column for each device and
    /// runtime. Each cell shows the median with its 95 % interval (bootstrap of the raw samples), and how many times as fast it
    /// is as the first column. Where the interval of this ratio includes 1, the cell says "no difference". With fewer than 4
    /// samples, the cell says that they are too few to tell. A column never mixes times of the host's clock with times of the
    /// device's clock. --html also writes an HTML report with charts, which needs no network. --json prints JSON instead of the
    /// table.
    #[command(after_help = EXIT_CODES)]
    Compare(crate::compare::Compare),
    /// List the GPU adapters of this machine
    #[command(after_help = EXIT_CODES)]
    Devices,
    /// Check that this machine computes correct results, in a few seconds
    ///
    /// Runs every operator on the GPU and compares it with the same computation on the CPU. Each operator runs its smallest
    /// example, and larger ones while a few seconds last. Then the built-in model must produce the tokens of the reference.
    /// With --model, that model is checked, too: its files are complete, no weight is NaN or infinite, it loads and answers,
    /// and if it is small, it answers as on the CPU. The lengths of its vocabulary rows are printed. The exit code is 1 if a
    /// check fails. For a bug report, add the output of `nemoflash doctor --json`.
    #[command(after_help = EXIT_CODES)]
    Doctor,
    /// Show how a model would run here: memory, GPU dispatches per token, which kernels and why
    ///
    /// This is a dry run: it reads config.json and the headers of the weight files, loads no weights and allocates nothing on
    /// the device. `nemoflash doctor --model` reads the weights: it checks them, and tells the lengths of the vocabulary rows.
    #[command(after_help = EXIT_CODES)]
    Explain,
    /// Measure the speed of a model, with the test names of llama-bench
    ///
    /// Measures loading, compilation of the kernels, the first token, prefill (pp) and decode (tg). --pg measures prefill and
    /// decode together, -d puts tokens in front of what is timed, and -b runs several sequences at a time. Each test first
    /// runs --warm-up times uncounted (on a GPU for at least half a second), then -r times counted. Times are those of the
    /// host's clock, read when the device has finished; the JSON also has the GPU's own time of each operator.
    ///
    /// Before the tests comes the golden check: the built-in model must produce the tokens of the reference on the same device.
    /// If it does not, all rows are marked. Each row also holds the tokens that the measured model gives after a fixed prompt.
    /// The last line says whether these tokens are the same on all devices.
    ///
    /// `bench --all-backends --browser --html report.html` measures everything that this machine offers: each GPU adapter, the
    /// CPU, and the web demo in an installed Chromium. It writes one HTML report that compares them.
    ///
    /// A row says everything that its numbers depend on, so one file may hold rows of several machines. Ctrl-C keeps the rows
    /// so far. While --file FILE is not complete, the rows are in FILE.part as JSON lines. `compare` reads that file, also
    /// after a crash. The exit code is 1 if a row has no result or is marked.
    #[command(after_help = EXIT_CODES)]
    Bench(Box<Bench>),
    /// Repeat the paper's two studies of latency: a look-up table of blocks, and depth against width
    #[command(after_help = EXIT_CODES)]
    Profile(Box<Profile>),
    /// Write a model's logits after each of the given token ids to a file (needs no tokenizer)
    #[command(after_help = EXIT_CODES)]
    Logits(Logits),
    /// Quantise a model to 4 or 8 bits, into a new folder in the layout of MLX
    ///
    /// The model is a folder or a model of the hub whose weights are not quantised yet. A matrix whose rows do not divide into
    /// whole groups stays as it is. The folder is written as `.OUT.partial` and gets the name OUT when it is complete. If a run
    /// was killed, the next run with the same OUT removes what it left.
    #[command(after_help = EXIT_CODES)]
    Quantize(Quantize),
    /// Write a folder of random weights with the shape of --arch, in the layout of a published model
    ///
    /// The folder is written as `.OUT.partial` and gets the name OUT when it is complete, as with `quantize`.
    #[command(after_help = EXIT_CODES)]
    Synthesize(Synthesize),
    /// Measure how well a model predicts a text file
    ///
    /// The text is cut into windows of --context tokens (default: 2048, or what the model allows). The windows do not overlap
    /// and share no state; the last one may be shorter. Each begins like a prompt: with the model's meta tokens, and with <s>
    /// if tokenizer.json says so. Perplexity is e to the mean of -ln p, where p is the probability that the model gives to a
    /// token after all tokens before it in its window. The first token of a window does not count. Perplexities can only be
    /// compared if the text, the tokenizer and the length of the windows are the same.
    #[command(after_help = EXIT_CODES)]
    Perplexity(Perplexity),
    /// Check a model's files: checksums of a download, headers, lengths, tensors
    #[command(after_help = EXIT_CODES)]
    Verify,
    /// Print a script with which a shell's Tab key completes commands and options
    ///
    /// In bash: mkdir -p ~/.local/share/bash-completion/completions; nemoflash completions bash >
    /// ~/.local/share/bash-completion/completions/nemoflash
    #[command(after_help = EXIT_CODES)]
    Completions(Completions),
    /// Print the manual page, or write a page for every command into a folder
    ///
    /// To read it: nemoflash man | man -l -
    #[command(after_help = EXIT_CODES)]
    Man(Man),
}

/// Options that commands share.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of most commands (a command refuses those that it has no use for)")]
pub struct Common {
    /// Folder with config.json, tokenizer.json and *.safetensors, or a model's id on the Hugging Face hub, which is downloaded
    /// once [default: the built-in model `fables`]
    #[arg(long, value_name = "DIR|OWNER/NAME", global = true)]
    pub model: Option<PathBuf>,
    /// Use random weights instead of a model, to measure speed without a download. Either a published shape (nemotron-flash-1b,
    /// -3b, qwen3-0.6b, -1.7b, qwen2.5-0.5b, -1.5b, llama-3.2-1b, -3b, smollm2-1.7b), or any stack that a config.json describes
    #[arg(long, value_name = "SHAPE|FILE.json", value_parser = arch::arch, conflicts_with = "model", global = true)]
    pub arch: Option<Arch>,
    /// How matrices are kept: as stored, or quantised to 8 or 4 bits while they are loaded [default: as stored]
    #[arg(long, global = true)]
    pub weights: Option<Weights>,
    /// Leave logits as they are. Nemotron-Flash models divide each logit by the length of its row of the vocabulary matrix;
    /// this option leaves that division out
    #[arg(long, global = true)]
    pub keep_logits: bool,
    /// Branch, tag or commit of a model on the hub [default: main]. A copy in the cache is used without asking the hub
    #[arg(long, value_name = "REV", value_parser = revision, global = true)]
    pub revision: Option<String>,
    /// Accept the model's licence and download without asking
    #[arg(long, global = true)]
    pub accept_license: bool,
    /// Where to run [default: the fastest kind of GPU that is not software, or the CPU if there is none]
    #[arg(long, global = true)]
    pub device: Option<Device>,
    /// Graphics interface of the GPU
    #[arg(long, global = true)]
    pub backend: Option<Backend>,
    /// GPU adapter: a part of its name, or its index in `nemoflash devices`
    #[arg(long, value_name = "TEXT|INDEX", global = true)]
    pub adapter: Option<String>,
    /// Optional GPU features to leave unused
    #[arg(long, value_name = "LIST", value_delimiter = ',', global = true)]
    pub deny: Vec<Feature>,
    /// How attention keys and values are stored [default: f16]
    #[arg(long, global = true)]
    pub kv: Option<KvArg>,
    /// How Mamba2 and DeltaNet blocks read a prompt: token by token, or in chunks [default: what is fastest on the device]
    #[arg(long, global = true)]
    pub scan: Option<ScanArg>,
    /// Longest text in tokens, prompt and answer together [default: 4096, or what the model allows]
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, "Leave --context out for what the model allows"), allow_negative_numbers = true, global = true)]
    pub context: Option<u32>,
    /// Print JSON on stdout instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Print on stderr what the GPU layer and its drivers log (RUST_LOG selects what)
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    Gpu,
    Cpu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    Vulkan,
    Metal,
    Dx12,
    Gl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Feature {
    F16,
    Subgroups,
    Coopmat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvArg {
    F16,
    F32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScanArg {
    Serial,
    Chunked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// As stored: bf16, or quantised already
    Bf16,
    /// 8 bits per weight; each group of 64 weights shares a scale and a bias
    Q8,
    /// 4 bits per weight; each group of 64 weights shares a scale and a bias
    Q4,
}

impl Common {
    /// How the core loads the checkpoint with these options.
    pub fn load(&self) -> LoadOptions {
        let quantise = match self.weights {
            None | Some(Weights::Bf16) => None,
            Some(Weights::Q8) => Some(Quant::new(8, defaults::GROUP_SIZE)),
            Some(Weights::Q4) => Some(Quant::new(4, defaults::GROUP_SIZE)),
        };
        LoadOptions { quantise, keep_logits: self.keep_logits }
    }

    /// Name of the wanted graphics interface.
    pub fn backend(&self) -> Option<String> {
        self.backend.and_then(|backend| Some(backend.to_possible_value()?.get_name().to_owned()))
    }

    pub fn gpu(&self) -> GpuOptions {
        let denied = |feature| self.deny.contains(&feature);
        let deny = Deny {
            f16: denied(Feature::F16),
            subgroups: denied(Feature::Subgroups),
            coopmat: denied(Feature::Coopmat),
        };
        GpuOptions { backend: self.backend(), adapter: self.adapter.clone(), deny, ..GpuOptions::default() }
    }

    pub fn kv(&self) -> Kv {
        match self.kv {
            None | Some(KvArg::F16) => Kv::F16,
            Some(KvArg::F32) => Kv::F32,
        }
    }

    pub fn scan(&self) -> Option<Scan> {
        self.scan.map(|scan| match scan {
            ScanArg::Serial => Scan::Serial,
            ScanArg::Chunked => Scan::Chunked,
        })
    }
}

#[derive(Debug, Args)]
pub struct Generate {
    /// The text to continue, or the question if --format is instruct or template. If it is missing or `-`, stdin is read,
    /// without its last line break. A terminal shows a text in front of its continuation; a pipe or a file gets only what the
    /// model writes
    #[arg(value_name = "PROMPT", help_heading = "Arguments")]
    pub prompt: Option<String>,
    #[command(flatten)]
    pub writing: Writing,
}

#[derive(Debug, Args)]
pub struct Chat {
    #[command(flatten)]
    pub writing: Writing,
}

fn revision(text: &str) -> Result<String, String> {
    match is_revision(text) {
        true => Ok(text.to_owned()),
        false => Err("not the name of a branch, a tag or a commit".to_owned()),
    }
}

#[derive(Debug, Args)]
pub struct Quantize {
    /// The folder to write; it must not exist or be empty
    #[arg(value_name = "OUT", help_heading = "Arguments")]
    pub out: PathBuf,
    /// Bits per weight
    #[arg(long, value_name = "4|8", default_value_t = 4)]
    pub bits: u32,
    /// How many neighbouring weights of a row share a scale and a bias
    #[arg(long, value_name = "32|64|128", default_value_t = defaults::GROUP_SIZE)]
    pub group_size: u32,
}

#[derive(Debug, Args)]
pub struct Synthesize {
    /// The folder to write; it must not exist or be empty
    #[arg(value_name = "OUT", help_heading = "Arguments")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct Perplexity {
    /// The text: a UTF-8 file of at most 64 MiB
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Read only the first N tokens of the text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_tokens: Option<u32>,
}

impl Cli {
    /// Reads the command line.
    ///
    /// # Errors
    /// Those of clap. A request for help or for the version is one of them.
    pub fn read() -> Result<Cli, clap::Error> {
        Cli::parse_strictly(std::env::args_os())
    }

    /// Reads arguments as clap does, and refuses options that would do nothing.
    fn parse_strictly<T: Into<std::ffi::OsString> + Clone>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Cli, clap::Error> {
        let mut command = Cli::command();
        let arguments: Vec<T> = arguments.into_iter().collect();
        let matches = match command.try_get_matches_from_mut(arguments.clone()) {
            Ok(matches) => matches,
            Err(error) => return Err(a_word_too_many(error, arguments)),
        };
        unused::refuse(&mut command, &matches)?;
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// Adds advice to the error about an unexpected word. Most often it is a prompt without quotes; behind a command that takes no
/// prompt, it is something else.
fn a_word_too_many<T: Into<std::ffi::OsString> + Clone>(error: clap::Error, arguments: Vec<T>) -> clap::Error {
    let word = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].into_iter().find_map(|kind| error.get(kind));
    match (error.kind(), word) {
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, Some(ContextValue::String(word)))
            if !word.starts_with('-') =>
        {
            let read = Cli::command().ignore_errors(true).try_get_matches_from(arguments).ok();
            let next = match read.as_ref().and_then(clap::ArgMatches::subcommand_name) {
                None | Some("generate") => "Put a prompt of several words in quotes".to_owned(),
                Some("chat") => {
                    "`chat` asks for each turn itself, or reads one on each line of its input. For one answer, \
                    write `nemoflash` in front of the text, without `chat`"
                        .to_owned()
                }
                Some(name) => format!("`nemoflash {name} --help` shows what `{name}` takes"),
            };
            Cli::command().error(ErrorKind::UnknownArgument, format!("unexpected word `{word}`. {next}"))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nemoflash::ChatOptions;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::parse_strictly([&["nemoflash"], line].concat())
    }

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_every_shape() {
        let mut command = Cli::command();
        let help = command.render_long_help().to_string();
        for (name, _) in nemoflash::ARCHS {
            let (family, size) = name.rsplit_once('-').unwrap();
            assert!(help.contains(name) || (help.contains(family) && help.contains(&format!("-{size}"))), "{name}");
        }
    }

    /// The defaults that the help names are those of the core.
    #[test]
    fn help_tells_the_defaults_of_the_core() {
        let mut command = Cli::command();
        command.build();
        let help = command.find_subcommand_mut("chat").expect("a command").render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let usual = defaults::SAMPLING;
        for (option, value) in [
            ("--temperature", usual.temperature.to_string()),
            ("--top-k", usual.top_k.to_string()),
            ("--top-p", usual.top_p.to_string()),
            ("--min-p", usual.min_p.to_string()),
            ("--repetition-penalty", usual.repetition_penalty.to_string()),
        ] {
            let (_, rest) = help.split_once(&format!(" {option} <")).expect(option);
            let (_, rest) = rest.split_once("generation_config.json says, or ").expect(option);
            assert_eq!(rest.split_once(']').expect(option).0, value, "{option}");
        }
        for word in [format!("[default: {}]", defaults::MAX_TOKENS), format!("[default: {}, or", defaults::CONTEXT)] {
            assert!(help.contains(&word), "{word}");
        }
        // Without options, the command chooses only the seed. All else is left to the core.
        let Some(Command::Chat(Chat { writing })) = parse(&["chat"]).unwrap().command else { panic!("a chat") };
        let options = writing.options();
        assert_eq!(options, ChatOptions { seed: options.seed, ..ChatOptions::default() });
    }

    #[test]
    fn advice_fits_the_mistake() {
        for (line, words) in [
            (&["chat", "hello there"][..], &["`hello there`", "`chat` asks for each turn"][..]),
            (&["devices", "now"], &["`now`", "nemoflash devices --help"]),
            (&["Once", "upon"], &["`upon`", "in quotes"]),
            (&["generate", "Once", "upon"], &["`upon`", "in quotes"]),
            (&["--seed", "-1", "Once"], &["--seed", "whole number of at least 0", "Leave --seed out"]),
            (&["--seed", "1.5", "Once"], &["--seed", "whole number of at least 0"]),
            (&["--seed", "18446744073709551616", "Once"], &["--seed", "whole number"]),
            (&["--top-k", "-1", "Once"], &["--top-k", "0 chooses among all tokens"]),
            (&["chat", "--top-k", "4294967296"], &["--top-k", "too large"]),
            (&["chat", "--max-tokens", "-1"], &["--max-tokens", "write a large number"]),
            (&["--max-tokens", "0", "Once"], &["--max-tokens", "at least 1"]),
            (&["explain", "--context", "-1"], &["--context", "Leave --context out"]),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{line:?}: {error}");
            // Negative control: the advice about quotes comes only with its own mistake.
            assert!(words[0] == "`upon`" || !error.contains("in quotes"), "{line:?}: {error}");
        }
    }

    #[test]
    fn generate_may_be_left_out() {
        let cli = parse(&["--seed", "7", "Once", "--json"]).unwrap();
        assert!(cli.command.is_none() && cli.common.json);
        assert_eq!((cli.generate.prompt.as_deref(), cli.generate.writing.seed), (Some("Once"), Some(7)));
        let cli = parse(&["generate", "chat"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Generate(Generate { prompt: Some(text), .. })) if text == "chat"));
    }

    #[test]
    fn common_options_go_anywhere() {
        for line in [["--backend", "gl", "devices"], ["devices", "--backend", "gl"]] {
            let cli = parse(&line).unwrap();
            assert!(matches!(cli.command, Some(Command::Devices)) && cli.common.backend == Some(Backend::Gl));
        }
    }

    #[test]
    fn misplaced_options_are_refused() {
        for line in [&["--max-tokens", "3", "chat"][..], &["Once", "chat"], &["devices", "--seed", "1"]] {
            assert!(parse(line).unwrap_err().use_stderr(), "{line:?}");
        }
    }
}
