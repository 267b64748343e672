//! The one error type: what went wrong, why, and what the user can do next.

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way in which this library can fail.
///
/// Each message says what went wrong, why, and what to do next. [`Error::code`] is stable across releases, and is the
/// same in Rust, in `--json` output and in JavaScript.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter of the wanted kind exists on this machine.
    #[error("no usable GPU adapter: {why}. {next}, or use the CPU (--device cpu)")]
    NoAdapter {
        /// What was looked for and what was found.
        why: String,
        /// What to do about it.
        next: &'static str,
    },
    /// The device could not be opened, was lost, or reported an error of its own.
    #[error(
        "the GPU device failed: {why}. Try again; if it persists, update the driver, pick another adapter, or use the CPU (--device cpu)"
    )]
    Device {
        /// What the device reported.
        why: String,
    },
    /// The device's limits are too small for what was asked.
    #[error("{what} needs {need} but this device allows {have} ({limit}). {next}")]
    Limit {
        /// The thing that does not fit: a tensor's or a buffer's name.
        what: String,
        /// The limit's name in WebGPU.
        limit: &'static str,
        /// What would be needed, in the limit's unit.
        need: u64,
        /// What the device allows.
        have: u64,
        /// What to do about it.
        next: &'static str,
    },
    /// The device or the host has too little free memory.
    #[error(
        "out of memory: {what} needs {bytes} bytes. Use a shorter context, fewer slots, a smaller model, or another device"
    )]
    OutOfMemory {
        /// The buffer's name.
        what: String,
        /// Its size.
        bytes: u64,
    },
    /// A file of a model that the caller lends is missing, or cannot be read.
    #[error("{name}: {why}. A model's folder holds config.json, tokenizer.json, and model.safetensors or its parts")]
    File {
        /// The file's name.
        name: String,
        /// What the system reported, or what is wrong.
        why: String,
    },
    /// `config.json` cannot be used.
    #[error("config.json: `{field}`: {why}. Use the unmodified config.json of a Nemotron-Flash or Qwen3 checkpoint")]
    Config {
        /// The field, or `(file)` for the file as a whole.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// A safetensors file or an index cannot be read.
    #[error("checkpoint: {why}. Download the file again, and check that the download finished")]
    Checkpoint {
        /// What is wrong, with the place.
        why: String,
    },
    /// The tensors of the checkpoint do not fit its configuration. Lists every mismatch.
    #[error("checkpoint: {} do not fit config.json:\n  {}\nUse config.json and *.safetensors of the same checkpoint", count(.0, "tensor"), .0.join("\n  "))]
    Tensors(
        /// One line for each missing, extra or mis-shaped tensor.
        Vec<String>,
    ),
    /// `tokenizer.json` cannot be used.
    #[error("tokenizer.json: {why}. Use the unmodified tokenizer.json of the checkpoint")]
    Tokenizer {
        /// What is wrong.
        why: String,
    },
    /// A chat template cannot be used, or refuses a conversation.
    #[error(
        "chat template: {why}. Use the checkpoint's unmodified files, or put the text to the model in another way (format text or instruct)"
    )]
    Template {
        /// What is wrong.
        why: String,
    },
    /// A prompt or a batch cannot be run.
    #[error("prompt: {why}. {next}")]
    Prompt {
        /// What is wrong with it.
        why: String,
        /// What to do about it.
        next: &'static str,
    },
    /// A parameter is out of its range.
    #[error("`{name}`: {why}")]
    Parameter {
        /// The parameter, as the user wrote it.
        name: &'static str,
        /// The value and the allowed range.
        why: String,
    },
    /// The model computed something that is not a number.
    #[error(
        "the model's output is not finite at position {position}: a weight or an activation overflowed. Check the checkpoint, or try the device cpu and kv f32 to find the cause"
    )]
    NonFinite {
        /// The position in the sequence, meta tokens included.
        position: u32,
    },
}

impl Error {
    /// A stable, lower-case name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NoAdapter { .. } => "no_adapter",
            Error::Device { .. } => "device",
            Error::Limit { .. } => "limit",
            Error::OutOfMemory { .. } => "out_of_memory",
            Error::File { .. } => "file",
            Error::Config { .. } => "config",
            Error::Checkpoint { .. } => "checkpoint",
            Error::Tensors(_) => "tensors",
            Error::Tokenizer { .. } => "tokenizer",
            Error::Template { .. } => "template",
            Error::Prompt { .. } => "prompt",
            Error::Parameter { .. } => "parameter",
            Error::NonFinite { .. } => "non_finite",
        }
    }
}

fn count(list: &[String], noun: &str) -> String {
    if list.len() == 1 { format!("1 {noun}") } else { format!("{} {noun}s", list.len()) }
}
