//! The engine: a model, the sequence memory and the plans. It takes tokens of sequences and chooses the next ones.

mod pace;
mod profile;
mod run;
mod select;
mod sequences;
mod transcript;

pub use pace::Clock;
pub use profile::Dispatch;
pub use run::{Event, Piece};
pub use sequences::Snapshot;
pub use transcript::Transcript;

use crate::arena::{Arena, Saved};
use crate::batch::{BATCH_WORDS, Batch, MAX_ROWS, MAX_SEGMENTS, Size};
use crate::blocks::{Block, Run, Scan};
use crate::buf::{Buf, Elem};
use crate::caps::Caps;
use crate::config::Config;
use crate::exec::{Exec, Ticket};
use crate::kernel::{Const, Kernel};
use crate::loaded::Loaded;
use crate::model::Model;
use crate::ops;
use crate::plan::{Part, Plan};
use crate::rotary::rotaries;
use crate::sampling::SAMPLING_WORDS;
use crate::scratch::Scratch;
use crate::{Error, Result};
use pace::Pace;
use sequences::Slot;
use std::collections::HashMap;

/// Numbers of rows for which plans of prompts are recorded. A step uses the smallest plan that holds its rows.
const PROMPT_BUCKETS: [u32; 8] = [1, ops::MATVEC_ROWS, 64, 128, 256, 512, 1024, MAX_ROWS as u32];
/// Numbers of rows for which plans are recorded where each row is the next token of another sequence, and for the
/// head and the choice of tokens. A kernel is compiled when a step needs a size for the first time. A GPU in software takes
/// longer to compile than to compute rows that nobody needs, so it leaves out those of [`FEW`].
const STEP_BUCKETS: [u32; 10] = [1, 2, 4, ops::MATVEC_ROWS, 16, 32, 64, 128, 256, MAX_SEGMENTS as u32];
/// See [`STEP_BUCKETS`].
const FEW: [u32; 2] = [2, 4];
/// Numbers of rows at which prompts use different kernels.
const PROMPTS: [u32; 2] = [64, ops::MATVEC_ROWS];
/// Rows that a step can have at least, unless the caller asks for fewer.
const FEWEST_ROWS: u32 = 512;
/// Rows from which on chunked scans with cooperative matrices are faster than serial ones (benches/NOTES.md).
const CHUNKED_ROWS: u32 = 64;
/// Number of decode steps that are submitted before the first of them is read.
const AHEAD: usize = 4;
/// Number of rows whose logits are computed at a time by [`Engine::logits`].
const LOGIT_ROWS: u32 = 64;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kv {
    /// f16: half the memory of f32, and half the bytes to read.
    #[default]
    F16,
    /// f32: keys and values are not rounded.
    F32,
}

/// The options of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// The most sequences at the same time.
    pub slots: u32,
    /// The most tokens of text in a sequence. Meta tokens come on top.
    pub context: u32,
    /// How keys and values are stored.
    pub kv: Kv,
    /// How recurrent scans process a prompt. `None` lets the engine choose what is fastest on the device.
    pub scan: Option<Scan>,
    /// Rows of one prefill step, at most 2,048. `None` lets the engine choose what is fastest on the device.
    /// [`Engine::step`] takes at least 512 rows in that case.
    pub prefill_rows: Option<u32>,
    /// A clock that the caller lends. With it, prompts are cut into steps that take less than a tenth of a second, or
    /// less than a quarter for eight rows, where the device can do that. Steps may take up to half a second where
    /// shorter ones save no time.
    pub clock: Option<Clock>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            slots: 1,
            context: crate::defaults::CONTEXT,
            kv: Kv::F16,
            scan: None,
            prefill_rows: None,
            clock: None,
        }
    }
}

/// The rows for which a step computes logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ends {
    /// None: the step is a part of a prompt that goes on.
    None,
    /// One row for each segment, in order. Every segment has one row, so no rows are gathered.
    Rows(u32),
    /// The last row of each segment. These rows are gathered first.
    Gathered(u32),
    /// All rows, whose logits the host reads. The plan has so many rows.
    All(u32),
}

/// A model, the sequence memory and the plans, on one device.
#[derive(Debug)]
pub struct Engine {
    exec: Exec,
    model: Model,
    options: EngineOptions,
    pace: Pace,
    arena: Arena,
    rotaries: Vec<Option<Buf>>,
    scratch: Scratch,
    batch: Buf,
    picked: Buf,
    sampling: Buf,
    seen: Buf,
    /// Last rows of segments, [slots rounded up, hidden_size].
    last: Buf,
    /// [slots rounded up, vocab_size].
    logits: Buf,
    /// The first result of [`ops::PickScan`], from which a token is chosen: [slots rounded up, blocks].
    maxima: Buf,
    /// The second result of [`ops::PickScan`]: [slots rounded up, blocks].
    scores: Buf,
    /// [LOGIT_ROWS, vocab_size]; made by the first [`Engine::logits`].
    all_logits: Option<Buf>,
    /// Plans of the layers, for the current selection of layers.
    bodies: HashMap<(u32, bool), Plan>,
    /// The layers that steps run, in order.
    layers: Vec<usize>,
    /// Plans of the layers, for earlier selections of layers.
    others: HashMap<Vec<usize>, HashMap<(u32, bool), Plan>>,
    ends: HashMap<Ends, Plan>,
    slots: Vec<Slot>,
    /// The saved state behind the meta tokens. Every new sequence begins with it.
    prefix: Option<Saved>,
}

/// Number of rows of the plan for a step of `rows` rows. With `steps`, each row is the next token of another sequence.
fn bucket(caps: &Caps, rows: u32, steps: bool) -> u32 {
    let buckets = if steps { &STEP_BUCKETS[..] } else { &PROMPT_BUCKETS };
    let fits = |bucket: &u32| *bucket >= rows && !(caps.software && FEW.contains(bucket));
    buckets.iter().copied().find(fits).unwrap_or(MAX_ROWS as u32)
}

/// The most rows of a prefill step, for scratch buffers of `width` f32 a row. With cooperative matrices, only thousands
/// of rows keep a large device busy (benches/NOTES.md). On a GPU in software, tiles are not faster than the kernels for
/// few rows, so a step has as many rows as those kernels can take (fables on llvmpipe: 475 tokens/s with 8 rows, 412
/// with 64, 212 with 16; on SwiftShader 115, 76, 45).
fn best_rows(caps: &Caps, width: u32) -> u32 {
    let fits = |rows: &u32| 4 * u64::from(*rows) * u64::from(width) <= caps.max_binding;
    match caps.software {
        true => ops::MATVEC_ROWS,
        false if caps.coopmat => [MAX_ROWS as u32, 1024].into_iter().find(fits).unwrap_or(FEWEST_ROWS),
        false => FEWEST_ROWS,
    }
}

impl Engine {
    /// Allocates the sequence memory and computes the state behind the meta tokens.
    ///
    /// # Errors
    /// [`Error::Parameter`] for options out of range, [`Error::Limit`] and [`Error::OutOfMemory`] if the device
    /// cannot hold the context, [`Error::Device`].
    pub async fn new(loaded: Loaded, options: EngineOptions) -> Result<Engine> {
        let Loaded { mut exec, model, .. } = loaded;
        let EngineOptions { slots, context, kv, .. } = options;
        let (prefill_rows, step_rows) = match options.prefill_rows {
            Some(rows) => (rows, rows),
            None => {
                let widths = model.layers.iter().map(|(_, block)| block.widths());
                let width = widths.map(|w| w.p.max(w.c).max(w.y)).max().unwrap_or(1);
                let rows = best_rows(exec.caps(), width);
                (rows, rows.max(FEWEST_ROWS))
            }
        };
        let range = |name, value: u32, most: u32| match value {
            1.. if value <= most => Ok(()),
            _ => Err(Error::Parameter { name, why: format!("{value} is not from 1 to {most}") }),
        };
        range("slots", slots, MAX_SEGMENTS as u32)?;
        range("context", context, 1 << 24)?;
        range("prefill_rows", prefill_rows, MAX_ROWS as u32)?;
        let config = &model.config;
        let positions = config.meta_tokens + context;
        let blocks = || model.layers.iter().map(|(_, block)| block);
        let exec_ref = &mut exec;
        let arena = Arena::alloc(exec_ref, blocks(), slots, positions, kv == Kv::F16).await?;
        let caps = exec_ref.caps().clone();
        let bucket = |rows, steps| bucket(&caps, rows, steps);
        let rows = bucket(step_rows.max(slots).max(LOGIT_ROWS), false);
        let widths = blocks().map(Block::widths);
        let scratch = Scratch::alloc(
            exec_ref,
            rows,
            [bucket(slots, true), slots, arena.bank],
            positions,
            config.hidden_size,
            widths,
        )
        .await?;
        let rotaries = rotaries(exec_ref, blocks(), positions).await?;
        let ends = u64::from(bucket(slots, true));
        let [vocab, hidden] = [config.vocab_size, config.hidden_size].map(u64::from);
        let blocks_of_tokens = u64::from(ops::PickScan::blocks(config.vocab_size));
        let seen = u64::from(slots) * vocab.div_ceil(32);
        let mut engine = Engine {
            batch: exec.alloc("batch", BATCH_WORDS, Elem::U32).await?,
            picked: exec.alloc("picked", slots.into(), Elem::U32).await?,
            sampling: exec.alloc("sampling", u64::from(slots) * SAMPLING_WORDS, Elem::U32).await?,
            seen: exec.alloc("seen", seen, Elem::U32).await?,
            last: exec.alloc("last rows", ends * hidden, Elem::F32).await?,
            logits: exec.alloc("logits", ends * vocab, Elem::F32).await?,
            maxima: exec.alloc("maxima", ends * blocks_of_tokens, Elem::U32).await?,
            scores: exec.alloc("scores", ends * blocks_of_tokens, Elem::F32).await?,
            all_logits: None,
            exec,
            layers: (0..model.layers.len()).collect(),
            model,
            options,
            pace: Pace::new(options.clock, prefill_rows),
            arena,
            rotaries,
            scratch,
            bodies: HashMap::new(),
            others: HashMap::new(),
            ends: HashMap::new(),
            slots: vec![Slot::default(); slots as usize],
            prefix: None,
        };
        engine.compute_prefix().await?;
        // The plans of decode steps and of short and long prompts are prepared now, so that nothing is compiled during
        // the first token.
        for prompt in PROMPTS {
            engine.prepare(engine.bucket(prefill_rows.min(prompt), false), false, Ends::Gathered(1)).await?;
        }
        engine.prepare(1, true, Ends::Rows(1)).await?;
        Ok(engine)
    }

    /// Runs the meta tokens through slot 0 and saves the state behind them (spec 3.1).
    async fn compute_prefix(&mut self) -> Result<()> {
        let Config { vocab_size, meta_tokens, .. } = self.model.config;
        if meta_tokens == 0 {
            return Ok(());
        }
        let ids: Vec<u32> = (vocab_size..vocab_size + meta_tokens).collect();
        let (mut position, mut rest) = (0, &ids[..]);
        while let Some(chunk) = self.next_chunk(&mut rest) {
            let mut batch = Batch::default();
            batch.push(0, position, chunk, false);
            position += chunk.len() as u32;
            // A single meta token must not go through a decode plan, because decode plans have no embeddings of meta
            // tokens.
            self.run(&batch, false, Ends::None).await?;
        }
        self.prefix = Some(self.arena.save(&mut self.exec, 0, meta_tokens).await?);
        Ok(())
    }

    /// The configuration of the model.
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The device.
    pub fn exec(&self) -> &Exec {
        &self.exec
    }

    /// The device, to measure it while the engine exists.
    pub fn exec_mut(&mut self) -> &mut Exec {
        &mut self.exec
    }

    /// Closes the engine and returns the device, with its compiled kernels and without buffers.
    pub fn into_exec(mut self) -> Exec {
        self.exec.clear();
        self.exec
    }

    /// The options that the engine was made with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Tokens of text that a sequence can hold.
    pub fn context(&self) -> u32 {
        self.options.context
    }

    /// Bytes of (weights, arena, scratch) on the device.
    pub fn device_bytes(&self) -> (u64, u64, u64) {
        let found = [self.last, self.logits, self.maxima, self.scores];
        let small = [self.batch, self.picked, self.sampling, self.seen].into_iter().chain(found);
        let ends = small.map(|buf| buf.bytes()).sum::<u64>() + self.all_logits.map_or(0, |buf| buf.bytes());
        let rotary: u64 = self.rotaries.iter().flatten().map(Buf::bytes).sum();
        (self.model.bytes(), self.arena.bytes(), self.scratch.bytes() + ends + rotary)
    }

    fn bucket(&self, rows: u32, steps: bool) -> u32 {
        bucket(self.exec.caps(), rows, steps)
    }

    /// Records and prepares the plans of a kind of step, unless they exist.
    async fn prepare(&mut self, rows: u32, steps: bool, ends: Ends) -> Result<()> {
        if !self.bodies.contains_key(&(rows, steps)) {
            let mut plan = self.record_body(rows, steps);
            self.exec.prepare(&mut plan).await?;
            self.bodies.insert((rows, steps), plan);
        }
        if !self.ends.contains_key(&ends) {
            let mut plan = Plan::default();
            self.record_ends(&mut plan, ends);
            self.exec.prepare(&mut plan).await?;
            self.ends.insert(ends, plan);
        }
        Ok(())
    }

    fn record_body(&self, rows: u32, steps: bool) -> Plan {
        let run = Run {
            rows,
            few: rows <= ops::few_rows(self.exec.caps()),
            steps,
            coop: self.exec.caps().coop(ops::COOP_BYTES),
            half: self.exec.caps().coopmat && rows > ops::few_rows(self.exec.caps()),
            scan: self.scan(rows),
            kv_f16: self.options.kv == Kv::F16,
            slots: self.options.slots,
            bank: self.arena.bank,
            positions: self.arena.positions,
            eps: self.model.config.rms_norm_eps,
            batch: self.batch,
            scratch: &self.scratch,
        };
        let memories: Vec<_> = self.arena.bufs().zip(self.rotaries.iter().copied()).collect();
        let mut plan = Plan::default();
        self.model.forward(&mut plan, &run, self.picked, &self.layers, &memories);
        plan
    }

    /// Records the plans of a step, without compiling or allocating anything, to look at its operators. The step is one
    /// token of each of `tokens` sequences, or with `prompt` a prompt of `tokens` tokens of one sequence.
    pub fn record(&self, tokens: u32, prompt: bool) -> [Plan; 2] {
        let rows = self.bucket(tokens, !prompt);
        let mut ends = Plan::default();
        self.record_ends(&mut ends, if prompt { Ends::Gathered(1) } else { Ends::Rows(rows) });
        [self.record_body(rows, !prompt), ends]
    }

    fn record_ends(&self, plan: &mut Plan, ends: Ends) {
        let Config { vocab_size: vocab, hidden_size: width, .. } = self.model.config;
        let slots = self.options.slots;
        let x = match ends {
            Ends::None => return,
            Ends::All(rows) => {
                let logits = self.all_logits.expect("allocated by logits()");
                let few = rows <= ops::few_rows(self.exec.caps());
                return self.model.logits(plan, rows, few, self.scratch.x, self.scratch.h, logits);
            }
            Ends::Rows(_) => self.scratch.x,
            Ends::Gathered(segments) => {
                plan.part = Part::Head;
                let rows = (self.scratch.x.len / u64::from(width)) as u32;
                plan.add(ops::GatherLast { rows, segments, width }, &[self.batch, self.scratch.x, self.last]);
                self.last
            }
        };
        let (Ends::Rows(rows) | Ends::Gathered(rows)) = ends else { return };
        let few = rows <= ops::few_rows(self.exec.caps());
        self.model.logits(plan, rows, few, x, self.scratch.h, self.logits);
        plan.part = Part::Pick;
        let Engine { batch, logits, maxima, scores, sampling, seen, picked, .. } = *self;
        plan.add(ops::PickScan { rows, vocab, slots }, &[batch, logits, sampling, seen, maxima, scores]);
        let bufs = [batch, logits, maxima, scores, sampling, seen, picked];
        plan.add(ops::Pick { rows, vocab, slots }, &bufs);
    }

    /// Submits a step. `write` is false if the batch is on the device already, because the previous choice of a token
    /// advanced it.
    async fn submit(&mut self, batch: &Batch, steps: bool, ends: Ends, write: bool) -> Result<Ticket> {
        let size = batch.size();
        let rows = self.bucket(size.rows, steps);
        self.prepare(rows, steps, ends).await?;
        if write {
            self.exec.write(self.batch, 0, &batch.words());
        }
        let ends_size = match ends {
            Ends::All(_) => size,
            _ => Size { rows: size.segments, segments: size.segments },
        };
        let plans = [(&self.bodies[&(rows, steps)], size), (&self.ends[&ends], ends_size)];
        let logits = u64::from(size.rows) * u64::from(self.model.config.vocab_size);
        let read = match ends {
            Ends::None => None,
            Ends::All(_) => self.all_logits.map(|buf| (buf, logits)),
            _ => Some((self.picked, self.options.slots.into())),
        };
        self.exec.submit(&plans, read)
    }

    /// Removes the tokens of the next prefill step from the front of the prompt.
    fn next_chunk<'a>(&self, rest: &mut &'a [u32]) -> Option<&'a [u32]> {
        let (chunk, more) = rest.split_at(self.pace.rows().min(rest.len()));
        *rest = more;
        (!chunk.is_empty()).then_some(chunk)
    }

    /// Submits a prefill step and waits for it. Time for compiling kernels does not count as time of the step.
    async fn run(&mut self, batch: &Batch, steps: bool, ends: Ends) -> Result<Vec<u32>> {
        let rows = batch.size().rows;
        self.prepare(self.bucket(rows, steps), steps, ends).await?;
        let begin = self.pace.begin();
        let ticket = self.submit(batch, steps, ends, true).await?;
        let read = self.exec.collect(ticket).await?;
        self.pace.end(rows as usize, begin);
        Ok(read)
    }

    /// How recurrent scans process a step of a prompt whose plan has so many rows.
    pub fn scan(&self, rows: u32) -> Scan {
        let chunked = self.exec.caps().coop(ops::COOP_BYTES) && rows >= CHUNKED_ROWS;
        self.options.scan.unwrap_or(if chunked { Scan::Chunked } else { Scan::Serial })
    }

    /// The most tokens of a prompt in one step.
    pub fn prefill_rows(&self) -> u32 {
        self.pace.most()
    }

    /// Waits until the device has done everything that was submitted.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub async fn wait(&mut self) -> Result<()> {
        self.exec.wait().await
    }

    /// The kernels of all plans that are prepared, each once, with their constants.
    pub fn kernels(&self) -> Vec<(Kernel, Vec<Const>)> {
        let mut kernels = vec![];
        for step in self.bodies.values().chain(self.ends.values()).flat_map(|plan| &plan.steps) {
            let entry = (step.op.kernel(), step.op.consts(self.exec.caps()));
            if !kernels.contains(&entry) {
                kernels.push(entry);
            }
        }
        kernels
    }

    /// The plans of one decode step of one sequence, in order.
    pub fn decode_plans(&self) -> [&Plan; 2] {
        [&self.bodies[&(1, true)], &self.ends[&Ends::Rows(1)]]
    }
}
