//! The operators of a model, in the sizes of a published shape.

use nemoflash::batch::Batch;
use nemoflash::op::AnyOp;
use nemoflash::plan::Plan;
use nemoflash::{Caps, Elem, Engine, EngineOptions, LoadOptions, Loaded, Result, Scan};

/// The least bytes of weights that an operator is timed with, so that caches cannot hold them.
const BYTES: u64 = 256 << 20;
/// The most dispatches of a run that have weights of their own.
const COPIES: usize = 64;

/// One operator of a step.
#[derive(Debug)]
pub struct Work {
    /// Copies of the operator, each for weights of its own.
    pub ops: Vec<Box<dyn AnyOp>>,
    /// The rows it runs on.
    pub batch: Batch,
    /// Number of its dispatches in one step.
    pub dispatches: usize,
}

/// The operators of one step of a model, the first one of the plan first. The step is a prompt of `tokens` tokens, or,
/// without `prompt`, the next token of `tokens` sequences that have `depth` tokens each. `scan` is how prompts are scanned.
///
/// # Errors
/// As [`Loaded::dry_run`], [`Engine::new`].
pub async fn work(
    config: &[u8],
    load: LoadOptions,
    caps: &Caps,
    [tokens, depth]: [u32; 2],
    prompt: bool,
    scan: Option<Scan>,
) -> Result<Vec<Work>> {
    // At least the default context, because the splits of the keys depend on it.
    let context = (depth + tokens).max(EngineOptions::default().context);
    let slots = if prompt { 1 } else { tokens };
    let options = EngineOptions { slots, context, scan, ..Default::default() };
    let engine = Engine::new(Loaded::dry_run(caps, config, &[], load).await?, options).await?;
    let position = engine.config().meta_tokens + depth;
    let mut batch = Batch::default();
    match prompt {
        true => batch.push(0, position, &(0..tokens).collect::<Vec<_>>(), true),
        false => (0..tokens).for_each(|slot| batch.push(slot, position, &[slot], true)),
    }
    // The rows for the head and the choice of tokens: one for each sequence.
    let mut ends = Batch::default();
    (0..slots).for_each(|slot| ends.push(slot, position, &[slot], true));
    let mut found: Vec<(String, Work)> = vec![];
    for round in 0..COPIES {
        for (plan, batch) in engine.record(tokens, prompt).into_iter().zip([&batch, &ends]) {
            let Plan { steps, .. } = plan;
            for step in steps {
                let name = format!("{:?}", step.op);
                let weights = |binds: &[Box<dyn AnyOp>]| -> u64 { binds.iter().map(|op| weights(&**op)).sum() };
                match found.iter_mut().find(|(known, _)| *known == name) {
                    None => {
                        found.push((name, Work { ops: vec![step.op], batch: batch.clone(), dispatches: 1 }));
                    }
                    Some((_, work)) => {
                        work.dispatches += usize::from(round == 0);
                        let held = weights(&work.ops);
                        if held > 0 && held < BYTES && work.ops.len() < COPIES {
                            work.ops.push(step.op);
                        }
                    }
                }
            }
        }
    }
    Ok(found.into_iter().map(|(_, work)| work).collect())
}

/// Bytes of weights that an operator binds.
fn weights(op: &dyn AnyOp) -> u64 {
    let binds = op.kernel().binds;
    let each = binds.iter().zip(op.lens()).filter(|(bind, _)| bind.elem == Elem::Weights);
    each.map(|(bind, len)| bind.elem.words(len) * 4).sum()
}
