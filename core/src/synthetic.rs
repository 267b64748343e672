//! Models without a checkpoint: a published shape, or any other, with random weights in a range that keeps all results
//! finite. They are made on the device, so that anyone can measure speed without a download.

use crate::batch::Size;
use crate::exec::Exec;
use crate::loaded::{Loaded, resolve};
use crate::loader::LoadOptions;
use crate::model::Model;
use crate::ops::RandomWeights;
use crate::place::{Pieces, Place};
use crate::plan::Plan;
use crate::table::Tensor;
use crate::{Error, Result};
use half::bf16;

/// The published shapes: name and `config.json` (spec 1 and 8). The longest context of a model is a guess where spec
/// 1.1 says so. The models that the paper compares with are written as Qwen3 configurations: with Qwen3's norms of q
/// and k, and without biases (Qwen2.5 has biases of q, k and v).
pub const ARCHS: [(&str, &str); 9] = [
    ("nemotron-flash-1b", include_str!("arch/nemotron-flash-1b.json")),
    ("nemotron-flash-3b", include_str!("arch/nemotron-flash-3b.json")),
    ("qwen3-0.6b", include_str!("arch/qwen3-0.6b.json")),
    ("qwen3-1.7b", include_str!("arch/qwen3-1.7b.json")),
    ("qwen2.5-0.5b", include_str!("arch/qwen2.5-0.5b.json")),
    ("qwen2.5-1.5b", include_str!("arch/qwen2.5-1.5b.json")),
    ("llama-3.2-1b", include_str!("arch/llama-3.2-1b.json")),
    ("llama-3.2-3b", include_str!("arch/llama-3.2-3b.json")),
    ("smollm2-1.7b", include_str!("arch/smollm2-1.7b.json")),
];

/// Words that one dispatch makes. It bounds the time of a submission.
const STEP: u64 = 1 << 26;
/// Words that the host makes at a time.
const PIECE: u64 = 1 << 20;

/// Random bf16 weights. Each tensor has its own stream of random numbers.
#[derive(Clone, Copy, Debug)]
pub struct Synthetic {
    /// The seed.
    pub seed: u64,
}

impl Synthetic {
    /// Mean and half-width of the uniform distribution of a tensor's elements. Matrices keep the variance of what they
    /// multiply, and norms are near 1. Mamba2's time steps and decays are in the ranges that models are initialised
    /// with.
    fn range(tensor: &Tensor) -> (f32, f32) {
        let name = tensor.name.rsplit_once('.').map_or("", |(_, last)| last);
        match (name, &tensor.shape[..]) {
            ("A_log", _) => (1.4, 1.4),
            ("dt_bias", _) => (-4.5, 2.3),
            ("bias", _) => (0.0, 0.1),
            (_, [_]) => (1.0, 0.1),
            (_, &[_, cols]) => (0.0, (3.0 / cols as f32).sqrt()),
            _ => (0.0, 0.5),
        }
    }

    /// The random stream of a tensor, from its first element on.
    fn stream(self, tensor: &Tensor) -> RandomWeights {
        // The seed contains the FNV-1a hash of the name, so that a tensor does not depend on its place in the list.
        let name = tensor.name.bytes().fold(0x811c_9dc5u32, |hash, b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193));
        let seed = name ^ (self.seed as u32) ^ ((self.seed >> 32) as u32).rotate_left(16);
        let (_, width) = Self::range(tensor);
        RandomWeights { at: 0, words: 0, first: 0, seed, step: width / 32768.0, raw: 0 }
    }

    /// Elements `2 first ..` of a tensor as bf16, two per word, as a checkpoint stores them.
    pub fn words(self, tensor: &Tensor, first: u64, out: &mut [u32]) {
        let (middle, _) = Self::range(tensor);
        let stream = RandomWeights { first: first as u32, ..self.stream(tensor) };
        for (i, out) in (0..).zip(out) {
            let word = stream.word(i);
            *out = if middle == 0.0 { word } else { shifted(word, middle) };
        }
    }

    /// Makes a model of this `config.json` with these weights, on a device.
    ///
    /// With [`LoadOptions::quantise`], matrices get random integers, and scales and biases that give the same range.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Parameter`] for a quantisation that does not exist, [`Error::Limit`] and
    /// [`Error::OutOfMemory`] if the device cannot hold the model.
    pub async fn model(self, mut exec: Exec, config_json: &[u8], options: LoadOptions) -> Result<Loaded> {
        let (config, places) = resolve(config_json, &[], options)?;
        let tensors = config.tensors();
        let (mut model, places) = Model::alloc(&mut exec, config, places).await?;
        for tensor in &tensors {
            let mut plan = Plan::default();
            match places.get(&tensor.name) {
                Some(Place::Lines(pieces)) => fill(&mut plan, self.stream(tensor), pieces),
                Some(Place::Quantise(quant, _, packed, pairs)) => {
                    fill(&mut plan, RandomWeights { raw: 1, ..self.stream(tensor) }, packed);
                    let (_, width) = Self::range(tensor);
                    let words = quant.halves(2.0 * width / ((1 << quant.bits) - 1) as f32, -width);
                    repeat(&mut exec, pairs, &words[..quant.scales.words() as usize]);
                }
                Some(Place::Floats(buf, at, map)) => {
                    let len = tensor.len();
                    let mut words = vec![0; len.div_ceil(2) as usize];
                    self.words(tensor, 0, &mut words);
                    let numbers: &[bf16] = bytemuck::cast_slice(&words);
                    let numbers = numbers[..len as usize].iter().map(|v| (map(v.to_f64()) as f32).to_bits());
                    exec.write(*buf, *at, &numbers.collect::<Vec<_>>());
                }
                _ => return Err(Error::Checkpoint { why: format!("tensor {} has no place", tensor.name) }),
            }
            exec.prepare(&mut plan).await?;
            let ticket = exec.submit(&[(&plan, Size { rows: 1, segments: 1 })], None)?;
            exec.collect(ticket).await?;
        }
        model.finish(&mut exec).await?;
        Ok(Loaded { exec, model, notes: vec![] })
    }
}

/// Adds a number to both bf16 of a word.
fn shifted(word: u32, by: f32) -> u32 {
    let half = |bits: u32| u32::from(bf16::from_f32(bf16::from_bits(bits as u16).to_f32() + by).to_bits());
    half(word & 0xffff) | half(word >> 16) << 16
}

/// Records operators that write a stream into the pieces, one piece after the other.
fn fill(plan: &mut Plan, stream: RandomWeights, pieces: &Pieces) {
    let mut first = 0;
    for &(buf, start, len) in pieces {
        for at in (0..len).step_by(STEP as usize) {
            let words = STEP.min(len - at);
            // A binding holds less than 2³² words.
            let op = RandomWeights { at: (start + at) as u32, words: words as u32, first: first as u32, ..stream };
            plan.add(op, &[buf]);
            first += words;
        }
    }
}

/// Fills the pieces with copies of these words.
fn repeat(exec: &mut Exec, pieces: &Pieces, words: &[u32]) {
    for &(buf, start, len) in pieces {
        for at in (0..len).step_by(PIECE as usize) {
            exec.write(buf, start + at, &words.repeat(PIECE.min(len - at) as usize / words.len()));
        }
    }
}

/// A `tokenizer.json` for a model without one. Token N is the text ` tN`, so that any text gives some tokens and any
/// tokens give some text. Ids 0, 1 and 2 are `<unk>`, `<s>` and `</s>`, and the 256 bytes follow. So the vocabulary has
/// at least 259 tokens.
pub fn tokenizer_json(vocab_size: u32) -> Vec<u8> {
    let special = ["<unk>", "<s>", "</s>"];
    let mut vocab = serde_json::Map::new();
    for (id, token) in (0u32..).zip(special) {
        vocab.insert(token.into(), id.into());
    }
    for id in 3..vocab_size {
        let token = match crate::text::BYTE_CHARS.get(id as usize - 3) {
            Some(byte) => byte.to_string(),
            None => format!("Ġt{id}"),
        };
        vocab.insert(token, id.into());
    }
    let added: Vec<_> = (0u32..)
        .zip(special)
        .map(|(id, content)| {
            serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let byte_level =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let all = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    all.to_string().into_bytes()
}
