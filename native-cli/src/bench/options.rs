//! The options of `nemoflash bench`.

use crate::args::Common;
use clap::{Args, ValueEnum};
use nemoflash_bench::Lists;
use nemoflash_bench::report::Kind;
use std::ffi::OsString;
use std::path::PathBuf;

/// Largest number of tokens that the options accept.
const MOST: i64 = 1 << 24;

#[derive(Clone, Debug, Args)]
pub struct Bench {
    /// Measure a whole table of models instead of single tests
    #[arg(conflicts_with_all = ["all_backends", "sweep", "browser", "model", "n_prompt", "pg"])]
    pub table: Option<Table>,
    /// Prompt lengths, in tokens, whose prefill is timed (pp); 0 for none
    #[arg(short = 'p', long, value_name = "LIST", value_delimiter = ',', default_value = "512", value_parser = clap::value_parser!(u32).range(..=MOST))]
    pub n_prompt: Vec<u32>,
    /// Numbers of tokens whose decode is timed (tg); 0 for none [default: 128; for the paper's table 8192]
    #[arg(short = 'n', long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(..=MOST))]
    pub n_gen: Option<Vec<u32>>,
    /// Numbers of tokens in front of what is timed (@ d) [default: 0; for the paper's table 32768]
    #[arg(short = 'd', long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(..=MOST))]
    pub n_depth: Option<Vec<u32>>,
    /// Prefill and decode timed together (pp+tg); may be given several times
    #[arg(long, value_name = "PP,TG", value_parser = pair)]
    pub pg: Vec<(u32, u32)>,
    /// Batch sizes: how many sequences run at a time (b) [default: 1; for the paper's table as many as fit]
    #[arg(short = 'b', long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=512))]
    pub batch: Option<Vec<u32>>,
    /// Counted runs of each test
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repetitions: u32,
    /// Uncounted runs of each test before the counted ones; on a GPU they take at least half a second
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub warm_up: u32,
    /// Number of steps over which the GPU's time of each operator is averaged; 0 leaves these times out
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub profile: u32,
    /// Tests to leave out
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub skip: Vec<Skip>,
    /// Format of the results; --json is the same as --output json
    #[arg(short, long, default_value = "md", conflicts_with = "json")]
    pub output: Output,
    /// Write the results to this file at the end, and a table to stdout. Until the end, FILE.part holds the results
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Also write the HTML report of `nemoflash compare`
    #[arg(long, value_name = "REPORT.html")]
    pub html: Option<PathBuf>,
    /// Measure every GPU adapter through every graphics interface, and the CPU, each in its own process
    #[arg(long, conflicts_with_all = ["device", "backend", "adapter"])]
    pub all_backends: bool,
    /// Measure again without each optional feature that the GPU has: as with --deny f16, --deny subgroups and --deny coopmat
    #[arg(long)]
    pub sweep: bool,
    /// Also measure in the web demo, in an installed Chromium, Chrome or Edge, or in the browser at PATH
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true)]
    pub browser: Option<Option<PathBuf>>,
    /// Folder of the built web demo, for --browser
    #[arg(long, value_name = "DIR", default_value = "web-demo/dist", requires = "browser")]
    pub page: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// Latency and throughput of Nemotron-Flash beside Qwen3, as in table 6 of arXiv 2511.18890, with random weights
    Paper,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A Markdown table
    Md,
    /// A line with the names of the columns, then one line per row
    Csv,
    /// One JSON object for the whole run
    Json,
    /// One JSON object per row, each on a line
    Jsonl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Skip {
    /// The golden check: whether the built-in model gives the tokens of the reference
    Gate,
    /// Loading, from the first file to an engine that is ready
    Load,
    /// Compilation of the GPU's kernels
    Compile,
    /// The time from the prompt to the first token
    FirstToken,
}

fn pair(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| text.parse().ok().filter(|n| (1..=MOST).contains(&i64::from(*n)));
    let pair = text.split_once(',').and_then(|(prompt, tokens)| number(prompt).zip(number(tokens)));
    pair.ok_or_else(|| "not two numbers, such as 512,128".to_owned())
}

impl Bench {
    /// The lists of sizes from which the tests are made.
    pub fn lists(&self) -> Lists {
        let kind = |skip: &Skip| match skip {
            Skip::Gate => None,
            Skip::Load => Some(Kind::Load),
            Skip::Compile => Some(Kind::Compile),
            Skip::FirstToken => Some(Kind::FirstToken),
        };
        Lists {
            prompts: self.n_prompt.clone(),
            tokens: self.n_gen.clone().unwrap_or_else(|| vec![128]),
            pairs: self.pg.clone(),
            depths: self.n_depth.clone().unwrap_or_else(|| vec![0]),
            batches: self.batch.clone().unwrap_or_else(|| vec![1]),
            skip: self.skip.iter().filter_map(kind).collect(),
        }
    }

    /// The arguments for another process, which measures the same on one device and writes JSON lines.
    pub fn arguments(&self, common: &Common) -> Vec<OsString> {
        let mut out: Vec<OsString> = vec!["bench".into(), "--output".into(), "jsonl".into()];
        let mut option = |name: &str, value: OsString| {
            // Name and value are one word, so that no value is taken for an option.
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            out.push(word);
        };
        fn list<T: ToString>(values: impl IntoIterator<Item = T>) -> OsString {
            values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(",").into()
        }
        fn names<T: ValueEnum>(values: &[T]) -> OsString {
            list(values.iter().filter_map(T::to_possible_value).map(|value| value.get_name().to_owned()))
        }
        // Every field is named here. So a new field does not compile until somebody decides what happens to it.
        let Bench { n_prompt, n_gen, n_depth, pg, batch, repetitions, warm_up, profile, skip, .. } = self;
        let Bench { table: _, output: _, file: _, html: _, all_backends: _, sweep: _, browser: _, page: _, .. } = self;
        let lists = [("n-prompt", Some(n_prompt)), ("n-gen", n_gen.as_ref()), ("n-depth", n_depth.as_ref())];
        for (name, values) in lists.into_iter().chain([("batch", batch.as_ref())]) {
            values.into_iter().for_each(|values| option(name, list(values)));
        }
        for (prompt, tokens) in pg {
            option("pg", list([prompt, tokens]));
        }
        for (name, value) in [("repetitions", repetitions), ("warm-up", warm_up), ("profile", profile)] {
            option(name, value.to_string().into());
        }
        if !skip.is_empty() {
            option("skip", names(skip));
        }
        let Common { model, arch, weights, keep_logits, revision, accept_license, .. } = common;
        let Common { device, backend, adapter, deny, kv, scan, context, json: _, verbose, .. } = common;
        let mut text = |name: &str, value: Option<OsString>| value.into_iter().for_each(|value| option(name, value));
        text("model", model.as_ref().map(OsString::from));
        text("arch", arch.as_ref().map(|shape| OsString::from(&shape.given)));
        text("weights", weights.map(|weights| names(&[weights])));
        text("revision", revision.as_ref().map(OsString::from));
        text("device", device.map(|device| names(&[device])));
        text("backend", backend.map(|backend| names(&[backend])));
        text("adapter", adapter.as_ref().map(OsString::from));
        text("deny", (!deny.is_empty()).then(|| names(deny)));
        text("kv", kv.map(|kv| names(&[kv])));
        text("scan", scan.map(|scan| names(&[scan])));
        text("context", context.map(|context| context.to_string().into()));
        let flags = [("keep-logits", keep_logits), ("accept-license", accept_license), ("verbose", verbose)];
        out.extend(flags.into_iter().filter(|(_, on)| **on).map(|(name, _)| format!("--{name}").into()));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    fn parse(line: &[OsString]) -> (Common, Bench) {
        let cli = Cli::try_parse_from([&["nemoflash".into()], line].concat()).unwrap();
        let Some(Command::Bench(bench)) = cli.command else { panic!("{line:?}") };
        (cli.common, *bench)
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn tests_have_the_names_of_llama_bench() {
        let names = |line: &str| {
            let tests = parse(&words(line)).1.lists().tests();
            tests.into_iter().map(|test| test.name).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(names("bench"), "load, compile, first token, pp512, tg128");
        let line = "bench -p 0 -n 32,64 -d 0,4096 --pg 8,4 -b 1,8 --skip load,compile";
        let each = ["", " b8", " @ d4096", " @ d4096 b8"];
        let want: Vec<_> =
            each.iter().flat_map(|at| ["tg32", "tg64", "pp8+tg4"].map(|test| test.to_owned() + at)).collect();
        assert_eq!(names(line), want.join(", "));
    }

    #[test]
    fn another_process_is_asked_for_the_same() {
        let line = "bench -p 1,2 -n 3 -d 4,5 --pg 6,7 --pg 8,9 -b 1,2 -r 3 --warm-up 2 --profile 0 --skip gate,load \
                    --model=-odd --weights q4 --revision main --device gpu --backend gl --adapter 0 --deny f16,coopmat \
                    --kv f32 --scan chunked --context 99 --keep-logits --accept-license --verbose";
        for line in [line, "bench", "bench --arch qwen3-0.6b"] {
            let line: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let (common, bench) = parse(&line);
            let (again, other) = parse(&bench.arguments(&common));
            assert_eq!(format!("{again:?}"), format!("{common:?}"));
            let wanted = Bench { output: Output::Jsonl, ..bench };
            assert_eq!(format!("{other:?}"), format!("{wanted:?}"));
        }
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for wrong in [
            "-r 0",
            "-b 0",
            "-b 513",
            "-p x",
            "-p -1",
            "--pg 1",
            "--pg 0,1",
            "-n 99999999",
            "--all-backends --device cpu",
            "-o md --json",
        ] {
            let line = [&words("nemoflash bench")[..], &words(wrong)].concat();
            assert!(Cli::try_parse_from(line).is_err(), "{wrong}");
        }
    }
}
