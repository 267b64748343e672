//! Runs the binary as a person would, with a time limit.
pub mod samples;

use serde_json::Value;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// No run of a test takes longer, unless it hangs.
const HANGS: Duration = Duration::from_secs(600);

/// The binary under test. It keeps its history in a folder of the tests.
pub fn nemoflash(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nemoflash"));
    command.args(arguments).env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// The option that runs a command on the CPU. Commands that run no model do not take it.
pub fn on_cpu(arguments: &[&str]) -> &'static [&'static str] {
    match arguments.first() {
        Some(&("devices" | "compare" | "verify" | "quantize" | "synthesize")) => &[],
        _ => &["--device", "cpu"],
    }
}

/// Runs on the CPU.
pub fn cpu(arguments: &[&str]) -> Run {
    finish(nemoflash(&[on_cpu(arguments), arguments].concat()).spawn().expect("the binary runs"))
}

/// Runs on the CPU with this on stdin.
pub fn cpu_with_stdin(arguments: &[&str], input: &[u8]) -> Run {
    let mut command = nemoflash(&[&["--device", "cpu"], arguments].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A program that stops reading closes the pipe; that is its right.
    thread::spawn(move || drop(stdin.write_all(&input)));
    finish(child)
}

/// Reads everything and waits, but not for ever.
pub fn finish(mut child: Child) -> Run {
    fn reader(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            let mut bytes = vec![];
            pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
            String::from_utf8(bytes).expect("output is UTF-8")
        })
    }
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if start.elapsed() > HANGS {
            let _ = child.kill();
            panic!("still running after {HANGS:?}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    Run { code: status.code(), out: out.join().expect("a reader"), err: err.join().expect("a reader") }
}

impl Run {
    /// The output of a run that must have gone well.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// The JSON of a run that must have gone well.
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).expect("stdout is one JSON value")
    }

    /// What is wrong with this as a clean failure whose message has all of these words: nothing on stdout, one
    /// message, no sign of a panic.
    pub fn faults(&self, code: i32, words: &[&str]) -> Vec<String> {
        let mut faults = vec![];
        if self.code != Some(code) {
            faults.push(format!("exit code {:?}, not {code}", self.code));
        }
        if !self.out.is_empty() {
            faults.push("something on stdout".into());
        }
        if !self.err.starts_with("error: ") || self.err.matches("error: ").count() > 1 {
            faults.push("not one message that begins with `error: `".into());
        }
        let lower = self.err.to_lowercase();
        faults.extend(
            ["panicked", "bug in", "rust_backtrace"].iter().filter(|w| lower.contains(**w)).map(|w| (*w).into()),
        );
        faults.extend(words.iter().filter(|w| !self.err.contains(**w)).map(|w| format!("no word of `{w}`")));
        faults
    }

    /// Fails the test unless it is a clean failure.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        let faults = self.faults(code, words);
        assert!(faults.is_empty(), "{faults:?}\n{self:#?}");
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A copy of the fables model that a test may spoil.
pub fn fables() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(root().join("models/fables").join(name), folder.path().join(name)).expect("a copy");
    }
    folder
}

/// Makes every weight of a copy NaN.
pub fn not_a_number(folder: &Path) {
    rewrite(folder, |_, data| data.fill(0xff));
}

/// Makes the last norm of a copy so large that logits overflow.
pub fn too_large(folder: &Path) {
    rewrite(folder, |header, data| {
        let [begin, end] = [0, 1].map(|i| header["model.final_layernorm.weight"]["data_offsets"][i].as_u64().unwrap());
        data[begin as usize..end as usize].fill(0x7f);
    });
}

fn rewrite(folder: &Path, change: impl Fn(&Value, &mut [u8])) {
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("weights");
    let len = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let (header, data) = bytes[8..].split_at_mut(len);
    change(&serde_json::from_slice(header).expect("a header"), data);
    std::fs::write(path, bytes).expect("a copy");
}
