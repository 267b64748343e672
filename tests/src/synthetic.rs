//! Models of any shape with random weights, which are passed to the loader as they are made.

use half::bf16;
use nemoflash::check::Random;
use nemoflash::{Config, Exec, Loaded, Loader, Result};
use serde_json::{Map, json};

/// Number of values that are made at a time.
const PIECE: u64 = 1 << 20;

/// Loads a model of this `config.json` with random bf16 weights from a seed. Norms are near 1. Embeddings are small compared
/// with what the blocks add, so that the next token is not simply the last one again.
///
/// # Errors
/// As [`Loader`].
pub fn load_synthetic(exec: Exec, config: &[u8], seed: u64) -> Result<Loaded> {
    let tensors = Config::parse(config)?.tensors();
    let (mut table, mut end) = (Map::new(), 0);
    for tensor in &tensors {
        let begin = end;
        end += 2 * tensor.shape.iter().product::<u64>();
        let entry = json!({"dtype": "BF16", "shape": tensor.shape, "data_offsets": [begin, end]});
        table.insert(tensor.name.clone(), entry);
    }
    let header = serde_json::to_vec(&table).expect("a table of numbers and names");
    pollster::block_on(async {
        let mut loader = Loader::new(exec, config, &[Some(8 + header.len() as u64 + end)])?;
        push(&mut loader, &(header.len() as u64).to_le_bytes()).await?;
        push(&mut loader, &header).await?;
        for (i, tensor) in tensors.iter().enumerate() {
            let (base, scale) = match tensor.shape[..] {
                [_] => (1.0, 0.1),
                [_, cols] if tensor.name.contains(".layers.") => (0.0, 3.0 / (cols as f32).sqrt()),
                _ => (0.0, 0.05),
            };
            let mut random = Random::new(seed + i as u64);
            let mut left = tensor.shape.iter().product::<u64>();
            while left > 0 {
                let here = left.min(PIECE);
                let mut four = (0u64, 0);
                let values = (0..here).map(|_| {
                    four = if four.1 == 0 { (random.bits(), 3) } else { (four.0 >> 16, four.1 - 1) };
                    bf16::from_f32(base + scale * f32::from(four.0 as i16) / 32768.0)
                });
                push(&mut loader, bytemuck::cast_slice(&values.collect::<Vec<bf16>>())).await?;
                left -= here;
            }
        }
        loader.finish().await
    })
}

async fn push(loader: &mut Loader, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let taken = loader.push(bytes).await?.taken;
        bytes = &bytes[taken..];
    }
    Ok(())
}
