//! The golden models and what the float64 reference says of them.

use nemoflash::{Exec, Loader, Model, Result, Want};
use safetensors::SafeTensors;
use std::path::PathBuf;

/// The golden models, each with the tensors' prefix of every prompt in its `expected` file.
pub const GOLDEN: [(&str, &[&str]); 5] = [
    ("mixed", &[""]),
    ("wide-heads", &[""]),
    ("variants", &[""]),
    ("attention-only", &[""]),
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
    /// Distance between the best and the second-best logit at each step of it.
    pub gap: Vec<f32>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of a golden model.
pub fn model_dir(name: &str) -> PathBuf {
    if name == "fables" { root().join("../models/fables") } else { root().join("golden").join(name) }
}

/// What the reference says of a model's prompt.
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
pub fn load(exec: &mut Exec, name: &str) -> Result<Model> {
    load_chunked(exec, name, &mut || usize::MAX)
}

/// Loads a golden model in pieces of the lengths that `piece` gives.
///
/// # Errors
/// As [`Loader`].
pub fn load_chunked(exec: &mut Exec, name: &str, piece: &mut dyn FnMut() -> usize) -> Result<Model> {
    let dir = model_dir(name);
    let config = std::fs::read(dir.join("config.json")).expect("config.json");
    let bytes = std::fs::read(dir.join("model.safetensors")).expect("model.safetensors");
    pollster::block_on(async {
        let mut loader = Loader::new(&config, &[Some(bytes.len() as u64)])?;
        while let Some(Want { offset, .. }) = loader.wants() {
            let rest = &bytes[offset as usize..];
            loader.push(exec, &rest[..piece().min(rest.len())]).await?;
        }
        loader.finish(exec).await
    })
}
