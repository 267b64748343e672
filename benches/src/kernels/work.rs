//! The operators of a published shape, in its sizes.

use nemoflash::batch::Batch;
use nemoflash::op::AnyOp;
use nemoflash::plan::Plan;
use nemoflash::{Caps, Elem, Engine, EngineOptions, LoadOptions, Loaded, Result};

/// Bytes of weights that an operator is timed with at least, so that caches do not hold them.
const BYTES: u64 = 256 << 20;
/// Dispatches that share a run at most.
const COPIES: usize = 64;

/// One operator of a step.
#[derive(Debug)]
pub struct Work {
    /// The same operator several times, each for weights of its own.
    pub ops: Vec<Box<dyn AnyOp>>,
    /// The rows it runs on.
    pub batch: Batch,
    /// Dispatches of it in one step.
    pub dispatches: usize,
}

/// The operators of a step of a model: of `tokens` tokens of one prompt, or the next token of so many sequences that hold
/// `depth` each. The first step of a plan first.
///
/// # Errors
/// As [`Loaded::dry_run`], [`Engine::new`].
pub async fn work(
    config: &[u8],
    load: LoadOptions,
    caps: &Caps,
    [tokens, depth]: [u32; 2],
    prompt: bool,
) -> Result<Vec<Work>> {
    // Of the usual length, on which the splits of the keys depend.
    let context = (depth + tokens).max(EngineOptions::default().context);
    let slots = if prompt { 1 } else { tokens };
    let options = EngineOptions { slots, context, ..Default::default() };
    let engine = Engine::new(Loaded::dry_run(caps, config, &[], load).await?, options).await?;
    let position = engine.config().meta_tokens + depth;
    let mut batch = Batch::default();
    match prompt {
        true => batch.push(0, position, &(0..tokens).collect::<Vec<_>>(), true),
        false => (0..tokens).for_each(|slot| batch.push(slot, position, &[slot], true)),
    }
    // What the ends see: a row of each sequence.
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
