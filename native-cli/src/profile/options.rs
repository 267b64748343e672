//! The options of `nemoflash profile`.

use super::points::{self, Point};
use crate::report::EXIT_CODES;
use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use nemoflash_bench::lookup::{Part, parse_blocks};
use std::path::PathBuf;

/// Largest number of tokens, or of rows of the vocabulary, that the options accept.
const MOST: i64 = 1 << 20;
/// Hidden sizes and widths are multiples of this.
pub const STEP: u32 = 64;

#[derive(Clone, Debug, Args)]
#[command(arg_required_else_help = true)]
pub struct Profile {
    #[command(subcommand)]
    pub study: Study,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Study {
    /// Measure what each kind of block costs (a latency look-up table), and how well it predicts whole stacks
    ///
    /// For each hidden size, two stacks take turns, run by run: one with one block of each kind, and one with
    /// --blocks more blocks of one kind. The difference of their times is what these blocks add to a decode step,
    /// including the launch of kernels and the wait for them. The time that is left without any block is that of the
    /// ends: embedding, head, choice of a token, submission. Attention is measured behind each of the -d numbers of
    /// tokens; the other kinds do not depend on them.
    ///
    /// The table is then tested on held-out stacks: whole stacks that no entry came from. They take turns with the
    /// others, and the prediction of their time is a sum of entries. They are the published orders of blocks, attention
    /// with FFN, and two stacks drawn from the paper's search space, also at a depth between two measured ones. The exit
    /// code is 1 if a prediction is off by more than 10 %. Stacks that the device cannot hold are left out, and the
    /// report says why. Times are medians of the host's clock, without the first run. benches/operators.schema.json
    /// describes the file.
    #[command(after_help = EXIT_CODES)]
    Operators(Operators),
    /// Measure decode over depth and width for a number of parameters, and find the best stack within a latency
    /// budget
    ///
    /// For each depth D, the width W is the multiple of 64 that comes nearest to the number of parameters. --points is
    /// a file with losses of trained models. The paper's law L(D, W) = L0 + a D^-alpha + b W^-beta is fitted to them.
    /// The sweet spot is the stack within the --budget whose loss by that law is lowest. Without --points, only the
    /// latency is known. benches/depth-width.schema.json describes the file.
    #[command(after_help = EXIT_CODES)]
    DepthWidth(DepthWidth),
}

impl Study {
    pub fn output(&self) -> &Output {
        match self {
            Study::Operators(args) => &args.output,
            Study::DepthWidth(args) => &args.output,
        }
    }

    /// The path of the file with losses, if one is given.
    pub fn points_file(&self) -> Option<PathBuf> {
        match self {
            Study::DepthWidth(args) => args.points.clone(),
            Study::Operators(_) => None,
        }
    }

    /// Reads the file with losses. This is done before anything is measured.
    ///
    /// # Errors
    /// If the file cannot be read or used.
    pub fn points(&self) -> Result<Option<Vec<Point>>> {
        self.points_file().map(|path| points::read(&path)).transpose()
    }
}

#[derive(Clone, Debug, Args)]
pub struct Operators {
    /// Hidden sizes, multiples of 64 [default: 1024 to 2560 in steps of 256, and 3072; on the CPU or a software GPU 128,256]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = width)]
    pub hidden: Vec<u32>,
    /// Batch sizes: how many sequences run at a time [default: 1,8; on the CPU or a software GPU 1]
    #[arg(short = 'b', long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=512))]
    pub batch: Vec<u32>,
    /// Numbers of tokens in front of the decoded ones [default: 0,1024,4096; on the CPU or a software GPU 0,64]
    #[arg(short = 'd', long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(..=MOST))]
    pub n_depth: Vec<u32>,
    /// Kinds of blocks [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub kinds: Vec<Kind>,
    /// How many more blocks of one kind the second stack has [default: 8; on the CPU or a software GPU 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub blocks: Option<u32>,
    /// Seed that draws the held-out stacks from the search space
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
pub struct DepthWidth {
    /// Numbers of parameters, the embedding included, such as 500M or 1.2B [default: 500M,1B; on the CPU or a software GPU
    /// 2M,4M]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = count)]
    pub params: Vec<u64>,
    /// Depths: how often the pattern is repeated [default: 6,12,18,24,30; on the CPU or a software GPU 2,4,8]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=512))]
    pub depths: Vec<u32>,
    /// Blocks of one unit of depth: a (attention), w (windowed attention), m2 (Mamba2), d (DeltaNet), f (FFN). With `a f`, as
    /// in the paper, each query head has keys and values of its own
    #[arg(long, value_name = "BLOCKS", default_value = "a f", value_parser = pattern)]
    pub pattern: Pattern,
    /// Losses of trained models: CSV with the columns depth, width and loss, or a JSON list of objects with these fields
    #[arg(long, value_name = "FILE")]
    pub points: Option<PathBuf>,
    /// Latency budgets, in milliseconds per token; the result names the sweet spot of each
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = milliseconds)]
    pub budget: Vec<f64>,
    /// Tokens in front of the decoded ones [default: 448, which puts the middle of 128 decoded tokens at 512, the
    /// middle of the paper's 1,024; on the CPU or a software GPU 0]
    #[arg(short = 'd', long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=MOST))]
    pub n_depth: Option<u32>,
    #[command(flatten)]
    pub output: Output,
}

/// What both studies share.
#[derive(Clone, Debug, Args)]
pub struct Output {
    /// Tokens decoded per run [default: 32 for operators, 128 for depth-width; on the CPU or a software GPU 8]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub n_gen: Option<u32>,
    /// Counted runs, after one uncounted run [default: 5; on the CPU or a software GPU 7]
    #[arg(short = 'r', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repetitions: Option<u32>,
    /// Vocabulary size: rows of the embedding and the head [default: 131072; on the CPU or a software GPU 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(512..=MOST))]
    pub vocab: Option<u32>,
    /// Leave out the golden check: whether the built-in model gives the tokens of the reference
    #[arg(long)]
    pub skip_gate: bool,
    /// Write the results to this file as JSON
    #[arg(long, value_name = "FILE.json")]
    pub file: Option<PathBuf>,
    /// Also write an HTML report with charts: one file without scripts, for any browser
    #[arg(long, value_name = "REPORT.html")]
    pub html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Attention over the whole text
    Attention,
    /// Attention over the last 512 tokens
    Window,
    Mamba2,
    #[value(name = "deltanet")]
    DeltaNet,
    Ffn,
}

impl Kind {
    pub fn part(self) -> Part {
        match self {
            Kind::Attention => Part::Attention,
            Kind::Window => Part::Window,
            Kind::Mamba2 => Part::Mamba2,
            Kind::DeltaNet => Part::DeltaNet,
            Kind::Ffn => Part::Ffn,
        }
    }
}

/// Blocks of one unit of depth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub Vec<Part>);

fn pattern(text: &str) -> Result<Pattern, String> {
    match parse_blocks(text) {
        Ok(blocks) if blocks.len() <= 32 => Ok(Pattern(blocks)),
        Ok(blocks) => Err(format!("{} blocks; a unit has at most 32", blocks.len())),
        Err(error) => Err(error.to_string()),
    }
}

fn width(text: &str) -> Result<u32, String> {
    let fits = |width: &u32| (STEP..=16_384).contains(width) && width.is_multiple_of(STEP);
    text.parse().ok().filter(fits).ok_or_else(|| format!("not a multiple of {STEP} from {STEP} to 16384"))
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let fits = |ms: &f64| ms.is_finite() && *ms > 0.0;
    text.parse().ok().filter(fits).ok_or_else(|| "not a number of milliseconds above 0, such as 2.5".to_owned())
}

fn count(text: &str) -> Result<u64, String> {
    let (number, times) = match text.to_ascii_lowercase() {
        text if text.ends_with('k') => (text[..text.len() - 1].to_owned(), 1e3),
        text if text.ends_with('m') => (text[..text.len() - 1].to_owned(), 1e6),
        text if text.ends_with('b') => (text[..text.len() - 1].to_owned(), 1e9),
        text => (text, 1.0),
    };
    let fits = |count: &f64| (1e5..=1e12).contains(count);
    let count = number.parse::<f64>().ok().map(|number| number * times).filter(fits);
    count.map(|count| count as u64).ok_or_else(|| "not a number of parameters from 100K to 1000B, such as 500M".into())
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    use super::*;

    fn parse(line: &str) -> Result<Study, clap::Error> {
        let cli = Cli::try_parse_from(format!("nemoflash profile {line}").split(' '))?;
        let Some(Command::Profile(profile)) = cli.command else { panic!("{line}") };
        Ok(profile.study)
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let line = "depth-width --params 500M,1b,1.2B,250000 --pattern d,f,m2,f --budget 2.5,3";
        let Ok(Study::DepthWidth(args)) = parse(line) else { panic!() };
        assert_eq!(args.params, [500_000_000, 1_000_000_000, 1_200_000_000, 250_000]);
        assert_eq!((args.pattern.0.len(), &args.budget[..]), (4, &[2.5, 3.0][..]));
        let Ok(Study::Operators(args)) = parse("operators --hidden 64,1280 --kinds ffn,deltanet -b 1,8 -d 0,10") else {
            panic!()
        };
        assert_eq!((&args.hidden[..], &args.kinds[..]), (&[64, 1280][..], &[Kind::Ffn, Kind::DeltaNet][..]));
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for line in [
            "operators --hidden 100",
            "operators --hidden 0",
            "operators --kinds dense",
            "operators -r 0",
            "operators -b 0",
            "operators --vocab 1",
            "depth-width --params 5",
            "depth-width --params xM",
            "depth-width --pattern q",
            "depth-width --budget 0",
            "depth-width --budget nan",
            "depth-width --depths 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
