//! Stacks of blocks: how blocks grow with the hidden size, and the held-out stacks that a table is tested with.

use super::Part;
use nemoflash::check::Random;
use nemoflash::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The proportions of blocks relative to their hidden size. The default is Nemotron-Flash's (spec 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Rows of the embedding. The head is tied to it.
    pub vocab: u32,
    /// Elements of a head of attention and DeltaNet. Heads are smaller if the hidden size would have fewer than four
    /// heads of this size, or is not a multiple of it.
    pub head_dim: u32,
    /// The most query heads that share one head of keys and values. The largest number up to this that divides the
    /// number of query heads is used.
    pub queries_per_kv: u32,
    /// Number of tokens that windowed attention looks back.
    pub window: u32,
    /// Width of an FFN divided by the hidden size. The width is rounded down to a multiple of 128.
    pub ffn_ratio: f64,
    /// Inner width of Mamba2 divided by the hidden size.
    pub mamba_expand: u32,
    /// Elements of a head of Mamba2.
    pub mamba_head_dim: u32,
    /// Elements of Mamba2's state per inner channel.
    pub d_state: u32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            vocab: 131_072,
            head_dim: 128,
            queries_per_kv: 4,
            window: 512,
            ffn_ratio: 3.0,
            mamba_expand: 2,
            mamba_head_dim: 64,
            d_state: 128,
        }
    }
}

impl Shape {
    /// (query heads, heads of keys and values, elements of each head).
    pub fn heads(&self, hidden: u32) -> (u32, u32, u32) {
        let mut dim = self.head_dim.max(8);
        while dim > 8 && (!hidden.is_multiple_of(dim) || hidden / dim < 4) {
            dim /= 2;
        }
        let heads = (hidden / dim).max(1);
        let shared = (1..=self.queries_per_kv.max(1)).rev().find(|shared| heads.is_multiple_of(*shared)).unwrap_or(1);
        (heads, heads / shared, dim)
    }

    /// The `config.json` of a stack, with the keys of Nemotron-Flash. It has no meta tokens, so that depths are exact.
    pub fn config(&self, hidden: u32, blocks: &[Part]) -> String {
        let (heads, kv_heads, dim) = self.heads(hidden);
        let word = |part: &Part| match part {
            Part::Attention | Part::Window => "a",
            Part::Mamba2 => "m2",
            Part::DeltaNet => "deltanet",
            Part::Ffn | Part::Ends => "f",
        };
        let far = (0u32..).zip(blocks).filter(|(_, part)| **part == Part::Attention).map(|(at, _)| at);
        json!({
            "architectures": ["NemotronFlashForCausalLM"],
            "model_type": "nemotron_flash",
            "vocab_size": self.vocab,
            "hidden_size": hidden,
            "layer_types": blocks.iter().map(word).collect::<Vec<_>>(),
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "kq_head_dim": dim,
            "v_head_dim": dim,
            "sliding_window": self.window,
            "global_attn_idx": far.collect::<Vec<u32>>(),
            "intermediate_size": 0,
            "ffn_expand_ratio": self.ffn_ratio,
            "mlp_hidden_act": "silu",
            "mamba_expand": self.mamba_expand,
            "mamba2_headdim": self.mamba_head_dim,
            "mamba_d_state": self.d_state,
            "num_memory_tokens": 0,
            "rope": true,
            "rope_type": "default",
            "rope_theta": 10000.0,
            "kq_norm": "none",
            "tie_word_embeddings": true,
        })
        .to_string()
    }
}

/// A stack of blocks at a hidden size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Its blocks in order. [`Part::Ends`] is not listed, because every stack has it.
    pub blocks: Vec<Part>,
}

/// The letters of blocks: `d f m2 f`.
pub fn letters(blocks: &[Part]) -> String {
    let letter = |part: &Part| match part {
        Part::Attention => "a",
        Part::Window => "w",
        Part::Mamba2 => "m2",
        Part::DeltaNet => "d",
        Part::Ffn => "f",
        Part::Ends => "ends",
    };
    blocks.iter().map(letter).collect::<Vec<_>>().join(" ")
}

/// Reads blocks from letters, with spaces or commas between them.
///
/// # Errors
/// [`Error::Parameter`] names a word that is not a block.
pub fn parse_blocks(text: &str) -> Result<Vec<Part>> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    let blocks: Vec<Part> = words
        .map(|word| match word {
            "a" => Ok(Part::Attention),
            "w" => Ok(Part::Window),
            "m2" | "m" => Ok(Part::Mamba2),
            "d" => Ok(Part::DeltaNet),
            "f" => Ok(Part::Ffn),
            _ => {
                let why = format!("{word:.20} is none of a, w (windowed attention), m2, d (DeltaNet) and f");
                Err(Error::Parameter { name: "blocks", why })
            }
        })
        .collect::<Result<_>>()?;
    match blocks.is_empty() {
        true => Err(Error::Parameter { name: "blocks", why: "there are none".into() }),
        false => Ok(blocks),
    }
}

/// The published orders of blocks (spec 1.2 and 7.5), the baseline of every study, and the hidden size of each.
const PUBLISHED: [(&str, u32, &str); 4] = [
    ("Nemotron-Flash-1B's order", 2048, "d f m2 f a f m2 f d f m2 f a f m2 f d f m2 f d f m2 f"),
    ("the paper's 500M order", 1280, "m2 f a f a f d m2 f a f a f d m2 f a f a f d m2 f a f d f f"),
    ("12 times attention and FFN", 1536, "a f a f a f a f a f a f a f a f a f a f a f a f"),
    (
        "Nemotron-Flash-3B's order",
        3072,
        "d f m2 f a f m2 f d f m2 f a f m2 f d f m2 f a f m2 f d f m2 f d f m2 f d f m2 f",
    ),
];
/// Hidden sizes for the two stacks that are drawn at random from the search space: the measured sizes nearest to these
/// are used.
const DRAWN: [u32; 2] = [0, 2560];

/// Whole stacks to test a table with: the published orders, and two that are drawn at random from the paper's search
/// space. Each has the measured hidden size that is nearest to its own. Stacks that contain other blocks than `parts`
/// are left out.
pub fn held_out(hidden: &[u32], parts: &[Part], seed: u64) -> Vec<Stack> {
    let next_to = |wanted: u32| hidden.iter().copied().min_by_key(|size| (size.abs_diff(wanted), *size));
    let published = PUBLISHED.iter().filter_map(|(name, size, text)| {
        Some(Stack { name: (*name).into(), hidden: next_to(*size)?, blocks: parse_blocks(text).ok()? })
    });
    let mut random = Random::new(seed);
    let drawn = DRAWN.iter().zip(1..).filter_map(|(size, n)| {
        let blocks = draw(&mut random);
        Some(Stack { name: format!("drawn from the search space, {n}"), hidden: next_to(*size)?, blocks })
    });
    let drawn: Vec<Stack> = drawn.collect();
    let fits = |stack: &Stack| stack.blocks.iter().all(|part| parts.contains(part));
    published.chain(drawn).filter(fits).collect()
}

/// Draws blocks at random from the search space (spec 7.6): three stages, each of which repeats one block type; at most
/// two kinds of mixers in a type, in the ratios 0:1, 1:1, 1:2 or 1:3; zero to two FFNs after each mixer; at most 30
/// blocks. Attention has the window, as in the paper's search.
fn draw(random: &mut Random) -> Vec<Part> {
    const MIXERS: [Part; 3] = [Part::DeltaNet, Part::Window, Part::Mamba2];
    const MOST: usize = 30;
    let mut below = |most: u64| (random.bits() % most) as usize;
    let mut blocks = vec![];
    for _ in 0..3 {
        let first = below(3);
        let second = (first + 1 + below(2)) % 3;
        let (one, other) = [(0, 1), (1, 1), (1, 2), (1, 3)][below(4)];
        let ffns = below(3);
        let repeats = 1 + below(3);
        let mixers = [vec![MIXERS[first]; one], vec![MIXERS[second]; other]].concat();
        for mixer in mixers.repeat(repeats) {
            blocks.push(mixer);
            blocks.extend(vec![Part::Ffn; ffns]);
        }
    }
    blocks.truncate(MOST);
    blocks
}
