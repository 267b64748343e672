//! The command line.

use crate::bench::Bench;
use crate::hub::is_revision;
use crate::logits::Logits;
use crate::manual::{Completions, Man};
use crate::profile::Profile;
use crate::report::EXIT_CODES;
use crate::shape::{self, Shape};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use nemoflash::{
    ChatFormat, ChatOptions, Deny, GpuOptions, Kv, LoadOptions, Message, Quant, Role, Sampling, TemplateOptions,
};
use std::path::PathBuf;

const USAGE: &str = "nemoflash [OPTIONS] [PROMPT]\n       nemoflash COMMAND [OPTIONS]";
const EXAMPLES: &str = "\
Examples:
  nemoflash \"Once upon a time\"                      tell a story with the built-in model
  nemoflash --seed 7 \"Once upon a time\"             the same story every time
  echo \"Once upon a time\" | nemoflash > story.txt   the continuation alone, for scripts
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
    #[command(after_help = EXIT_CODES)]
    Chat(Chat),
    /// Compare results of `bench`, from any machines
    ///
    /// Reads JSON and JSON lines, and prints a table with a line for each test and a column for each device and runtime. Each
    /// cell shows the median with its 95 % interval (bootstrap of the raw samples), and how many times as fast it is as the first
    /// column. Where the interval of this ratio includes 1, the cell says "no difference". Fewer than 4 samples are not compared.
    /// Times of the host's clock and of a device's clock are never in one column. --html writes the same as a page with charts,
    /// which needs no network. --json prints the same as data.
    #[command(after_help = EXIT_CODES)]
    Compare(crate::compare::Compare),
    /// List the GPU adapters of this machine
    #[command(after_help = EXIT_CODES)]
    Devices,
    /// Check that this machine computes correct results, in a few seconds
    ///
    /// Runs every operator on the GPU and compares it with the same computation on the CPU, smallest examples first, until the
    /// time is up. Then the built-in model must produce the tokens of the reference. With --model, also checks that model: its
    /// files are complete, no weight is NaN or infinite, it loads and answers, and a small model answers as on the CPU. The exit
    /// code is 1 if a check fails. For a bug report, add the output of `nemoflash doctor --json`.
    #[command(after_help = EXIT_CODES)]
    Doctor,
    /// Show how a model runs here: memory, GPU dispatches per token, which kernels and why
    #[command(after_help = EXIT_CODES)]
    Explain,
    /// Measure the speed of a model, with the test names of llama-bench
    ///
    /// Measures loading, compilation of the kernels, the first token, prefill (pp), decode (tg), and with --pg both together. -d
    /// puts tokens in front of what is timed, and -b runs several sequences at a time. Each test first runs --warm-up times
    /// uncounted, then -r times counted. Times are those of the host's clock, read when the device has finished; the JSON also
    /// has the GPU's own time of each operator. First, the built-in model must produce the golden tokens of the reference on the
    /// same device; if it does not, the rows are marked. Each row holds what the measured model says to a fixed prompt, and the
    /// last line tells whether all devices say the same.
    ///
    /// `bench --all-backends --browser --html report.html` measures all that this machine can do, each adapter, the CPU
    /// and the built page in a Chromium, and writes one page that compares them.
    ///
    /// A row has everything that its numbers depend on, so rows of several machines can stand in one file. Each is written
    /// when it is measured; Ctrl-C keeps those. The exit code is 1 if a row has no result or a marked one.
    #[command(after_help = EXIT_CODES)]
    Bench(Box<Bench>),
    /// Repeat the paper's two studies of latency: a look-up table of blocks, and depth against width
    #[command(after_help = EXIT_CODES)]
    Profile(Box<Profile>),
    /// Write the logits of token ids to a file (needs no tokenizer)
    #[command(after_help = EXIT_CODES)]
    Logits(Logits),
    /// Quantise a model to 4 or 8 bits, into a new folder in the layout of MLX
    #[command(after_help = EXIT_CODES)]
    Quantize(Quantize),
    /// Write a folder of random weights with the shape of --arch, in the layout of a published model
    #[command(after_help = EXIT_CODES)]
    Synthesize(Synthesize),
    /// Measure how well a model predicts a text file
    ///
    /// The text is cut into windows of --context tokens (default: 2048, or what the model allows). The windows do not overlap and
    /// share no state; the last one may be shorter. Each begins like a prompt: with the model's meta tokens, and with <s> if
    /// tokenizer.json says so. With p the probability of a token given all tokens before it in its window, perplexity is e to the
    /// mean of -ln p. The first token of a window does not count. Compare only numbers of the same text, tokenizer and window.
    #[command(after_help = EXIT_CODES)]
    Perplexity(Perplexity),
    /// Check a model's files: checksums of a download, headers, lengths, tensors
    #[command(after_help = EXIT_CODES)]
    Verify,
    /// Print the completions of a shell: commands and options, as its Tab key completes them
    ///
    /// In bash: nemoflash completions bash > ~/.local/share/bash-completion/completions/nemoflash
    #[command(after_help = EXIT_CODES)]
    Completions(Completions),
    /// Print the manual page, or write a page for every command into a folder
    ///
    /// To read it: nemoflash man | man -l -
    #[command(after_help = EXIT_CODES)]
    Man(Man),
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// Folder with config.json, tokenizer.json and *.safetensors, or a model's id on the Hugging Face hub, which is downloaded
    /// once [default: the built-in model `fables`]
    #[arg(long, value_name = "DIR|OWNER/NAME", global = true)]
    pub model: Option<PathBuf>,
    /// Use random weights instead of a model, to measure speed without a download. Either a published shape (nemotron-flash-1b,
    /// -3b, qwen3-0.6b, -1.7b, qwen2.5-0.5b, -1.5b, llama-3.2-1b, -3b, smollm2-1.7b), or any stack that a config.json describes
    #[arg(long, value_name = "SHAPE|FILE.json", value_parser = shape::shape, conflicts_with = "model", global = true)]
    pub arch: Option<Shape>,
    /// How matrices are kept: as stored, or quantised to 8 or 4 bits while they are loaded [default: as stored]
    #[arg(long, global = true)]
    pub weights: Option<Weights>,
    /// Leave out the division that Nemotron-Flash models apply to each logit, by the length of its row of the vocabulary
    #[arg(long, global = true)]
    pub keep_logits: bool,
    /// Branch, tag or commit of a model on the hub [default: main]. A copy in the cache is used without asking the hub
    #[arg(long, value_name = "REV", value_parser = revision, global = true)]
    pub revision: Option<String>,
    /// Accept the model's licence and download without asking
    #[arg(long, global = true)]
    pub accept_license: bool,
    /// Where to run [default: the first GPU that is not software, or the CPU if there is none]
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
    /// Longest text in tokens, prompt and answer together [default: 4096, or what the model allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), global = true)]
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
pub enum Weights {
    /// As stored: bf16, or quantised already
    Bf16,
    /// 8 bits, a scale and a bias for 64 of them
    Q8,
    /// 4 bits, a scale and a bias for 64 of them
    Q4,
}

/// Weights of a group where nobody asks for another number.
pub const GROUP_SIZE: u32 = 64;

impl Common {
    /// What to make of the checkpoint.
    pub fn load(&self) -> LoadOptions {
        let quantise = match self.weights {
            None | Some(Weights::Bf16) => None,
            Some(Weights::Q8) => Some(Quant { bits: 8, group: GROUP_SIZE, scale_f16: false }),
            Some(Weights::Q4) => Some(Quant { bits: 4, group: GROUP_SIZE, scale_f16: false }),
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
}

#[derive(Debug, Args)]
pub struct Generate {
    /// The text to continue, or with --format the question. Without it, or with `-`, it is read from stdin, less its last line break. A terminal
    /// shows prompt and continuation; a pipe or a file gets the continuation alone
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Plain text: what you write is continued, and continued again
    Text,
    /// Questions and answers: `User: ...`, `Assistant:`
    Instruct,
    /// Questions and answers as the model's own chat template writes them
    Template,
}

impl Format {
    fn core(self) -> ChatFormat {
        match self {
            Format::Text => ChatFormat::Text,
            Format::Instruct => ChatFormat::Instruct,
            Format::Template => ChatFormat::Template,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// How text is written: the options that generate and chat share.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of the text")]
pub struct Writing {
    /// How text is put to the model [default: text; in a chat, template if the model has one, or instruct if its name
    /// contains "Instruct"]
    #[arg(long)]
    pub format: Option<Format>,
    /// What holds for the whole conversation, for models with a chat template
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Whether the model thinks before it answers. Chat templates see it as `enable_thinking` [default: as the template says]
    #[arg(long, value_name = "on|off", hide_possible_values = true)]
    pub thinking: Option<Switch>,
    /// Longest answer in tokens
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// 0 always takes the most probable token; the higher, the more surprising
    #[arg(long, value_name = "F", default_value_t = 0.8, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Choose among the N most probable tokens; 0 is off
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub top_k: u32,
    /// Choose among the most probable tokens that have this probability together; 1 is off
    #[arg(long, value_name = "F", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Leave out tokens below this fraction of the largest probability; 0 is off
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    pub min_p: f32,
    /// Make tokens that the text already holds less probable; 1 is off
    #[arg(long, value_name = "F", default_value_t = 1.0, allow_negative_numbers = true)]
    pub repetition_penalty: f32,
    /// The same seed, prompt, model and device give the same text [default: random, told at the end]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Stop in front of this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

impl Writing {
    /// What an answer is asked for with; a seed is drawn where none is given.
    pub fn options(&self) -> ChatOptions {
        ChatOptions {
            format: self.format.map(Format::core),
            template: TemplateOptions { thinking: self.thinking.map(|switch| switch == Switch::On), now: None },
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                seed: self.seed.unwrap_or_else(random_seed),
            },
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
        }
    }

    /// The messages that every conversation begins with: what `--system` says.
    pub fn beginning(&self) -> Vec<Message> {
        self.system.iter().map(|text| Message::new(Role::System, text)).collect()
    }
}

fn revision(text: &str) -> Result<String, String> {
    match is_revision(text) {
        true => Ok(text.to_owned()),
        false => Err("not the name of a branch, a tag or a commit".to_owned()),
    }
}

/// Short enough to be typed again.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id()) >> 40
}

#[derive(Debug, Args)]
pub struct Quantize {
    /// The folder to write; it must not exist or be empty
    #[arg(value_name = "OUT", help_heading = "Arguments")]
    pub out: PathBuf,
    /// Bits of a weight
    #[arg(long, value_name = "4|8", default_value_t = 4)]
    pub bits: u32,
    /// Weights that share a scale and a bias
    #[arg(long, value_name = "32|64|128", default_value_t = GROUP_SIZE)]
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
    /// Take only this many tokens from the beginning of the text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_tokens: Option<u32>,
}

impl Cli {
    /// Reads the command line.
    ///
    /// # Errors
    /// clap's, help and version among them.
    pub fn read() -> Result<Cli, clap::Error> {
        Cli::parse_strictly(std::env::args_os())
    }

    /// As clap's, and refuses options of `generate` in front of another command: they would do nothing there.
    fn parse_strictly<T: Into<std::ffi::OsString> + Clone>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Cli, clap::Error> {
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(arguments).map_err(quotes)?;
        if let Some(name) = matches.subcommand_name() {
            let own = Generate::augment_args(clap::Command::new("generate"));
            let given = |id: &&clap::Arg| matches.value_source(id.get_id().as_str()) == Some(ValueSource::CommandLine);
            if let Some(arg) = own.get_arguments().find(given) {
                let what = match arg.get_long() {
                    Some(long) => format!("`--{long}`"),
                    None => "a prompt".to_owned(),
                };
                let why =
                    format!("{what} in front of `{name}` has no effect; write it after `{name}`, or leave it out");
                return Err(command.error(ErrorKind::ArgumentConflict, why));
            }
        }
        Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// A word too many is most often a prompt without quotes.
fn quotes(error: clap::Error) -> clap::Error {
    let word = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].into_iter().find_map(|kind| error.get(kind));
    match (error.kind(), word) {
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, Some(ContextValue::String(word)))
            if !word.starts_with('-') =>
        {
            let why = format!("unexpected word `{word}`. Put a prompt of several words in quotes");
            Cli::command().error(ErrorKind::UnknownArgument, why)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for line in [["--device", "cpu", "devices"], ["devices", "--device", "cpu"]] {
            let cli = parse(&line).unwrap();
            assert!(matches!(cli.command, Some(Command::Devices)) && cli.common.device == Some(Device::Cpu));
        }
    }

    #[test]
    fn misplaced_options_are_refused() {
        for line in [&["--max-tokens", "3", "chat"][..], &["Once", "chat"], &["devices", "--seed", "1"]] {
            assert!(parse(line).unwrap_err().use_stderr(), "{line:?}");
        }
    }
}
