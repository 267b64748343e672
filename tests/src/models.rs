//! The golden models, and what the float64 reference computes for them.

use nemoflash::{Exec, LoadOptions, Loaded, Loader, Result, Want};
use safetensors::SafeTensors;
use std::path::PathBuf;

/// The golden models. Each comes with the prefixes of tensor names in its `expected` file, one for every prompt.
pub const GOLDEN: [(&str, &[&str]); 7] = [
    ("mixed", &[""]),
    ("wide-heads", &[""]),
    ("variants", &[""]),
    ("attention-only", &[""]),
    ("qwen3", &[""]),
    // The same model in 4 bits, written by mlx-lm 0.32 (group 64).
    ("qwen3-mlx", &[""]),
    ("fables", &["0.", "1.", "2."]),
];

/// What the reference computes for one prompt.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The prompt.
    pub ids: Vec<u32>,
    /// Logits [ids, vocab].
    pub logits: Vec<f32>,
    /// The greedy continuation.
    pub greedy: Vec<u32>,
    /// Distance between the largest and the second largest logit at each step of the continuation.
    pub gap: Vec<f32>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of a golden model.
pub fn model_dir(name: &str) -> PathBuf {
    if name == "fables" { root().join("../models/fables") } else { root().join("golden").join(name) }
}

/// Reads what the reference computes for a prompt of a model.
pub fn expected(name: &str, prefix: &str) -> Expected {
    let file = match name {
        "fables" => root().join("golden/fables.safetensors"),
        _ => model_dir(name).join("expected.safetensors"),
    };
    let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let tensors = SafeTensors::deserialize(&bytes).expect("golden file");
    let words = |name: &str| -> Vec<u32> {
        bytemuck::pod_collect_to_vec(tensors.tensor(&format!("{prefix}{name}")).expect("golden tensor").data())
    };
    Expected {
        ids: words("ids"),
        logits: bytemuck::cast_vec(words("logits")),
        greedy: words("greedy"),
        gap: bytemuck::cast_vec(words("gap")),
    }
}

/// Loads a golden model.
///
/// # Errors
/// As [`Loader`].
pub fn load(exec: Exec, name: &str) -> Result<Loaded> {
    load_chunked(exec, name, &mut || usize::MAX)
}

/// Loads a golden model in pieces of the lengths that `piece` gives.
///
/// # Errors
/// As [`Loader`].
pub fn load_chunked(exec: Exec, name: &str, piece: &mut dyn FnMut() -> usize) -> Result<Loaded> {
    let (config, bytes) = checkpoint(name);
    load_files(exec, &config, &[bytes], piece)
}

/// `config.json` and `model.safetensors` of a golden model.
pub fn checkpoint(name: &str) -> (Vec<u8>, Vec<u8>) {
    let read = |file| std::fs::read(model_dir(name).join(file)).unwrap_or_else(|e| panic!("{name}/{file}: {e}"));
    (read("config.json"), read("model.safetensors"))
}

/// Loads a checkpoint of several files in pieces of the lengths that `piece` gives. If a file ends too early,
/// [`Loader::finish`] says so.
///
/// # Errors
/// As [`Loader`].
///
/// # Panics
/// If the loader takes nothing of a piece, because the loop would never end.
pub fn load_files(exec: Exec, config: &[u8], files: &[Vec<u8>], piece: &mut dyn FnMut() -> usize) -> Result<Loaded> {
    let lens: Vec<_> = files.iter().map(|bytes| Some(bytes.len() as u64)).collect();
    load_lens(exec, config, files, &lens, piece)
}

/// As [`load_files`], but the loader gets these lengths of the files.
///
/// # Errors
/// As [`Loader`].
///
/// # Panics
/// As [`load_files`].
pub fn load_lens(
    exec: Exec,
    config: &[u8],
    files: &[Vec<u8>],
    lens: &[Option<u64>],
    piece: &mut dyn FnMut() -> usize,
) -> Result<Loaded> {
    push_all(files, Loader::new(exec, config, lens)?, piece)
}

/// As [`load_files`], with options.
///
/// # Errors
/// As [`Loader`].
pub fn load_options(
    exec: Exec,
    config: &[u8],
    files: &[Vec<u8>],
    options: LoadOptions,
    piece: &mut dyn FnMut() -> usize,
) -> Result<Loaded> {
    let lens: Vec<_> = files.iter().map(|bytes| Some(bytes.len() as u64)).collect();
    push_all(files, Loader::with_options(exec, config, &lens, options)?, piece)
}

fn push_all(files: &[Vec<u8>], mut loader: Loader, piece: &mut dyn FnMut() -> usize) -> Result<Loaded> {
    pollster::block_on(async {
        while let Some(Want { file, offset }) = loader.wants() {
            let rest = files[file].get(offset as usize..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let bytes = &rest[..piece().min(rest.len())];
            let taken = loader.push(bytes).await?.taken;
            assert!(taken > 0 || bytes.is_empty(), "nothing was taken at {offset} of file {file}");
        }
        loader.finish().await
    })
}
