//! The engine: model, arena and plans. Takes rows, gives tokens.

use crate::arena::{Arena, Saved};
use crate::batch::{BATCH_WORDS, Batch, MAX_ROWS, PICKED, Size};
use crate::blocks::{Block, Run, Scan};
use crate::buf::{Buf, Elem};
use crate::config::Config;
use crate::exec::{Exec, Ticket};
use crate::model::Model;
use crate::ops;
use crate::plan::Plan;
use crate::sampling::{NOT_FINITE, SAMPLING_WORDS, Sampling};
use crate::scratch::Scratch;
use crate::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;

/// Rows for which plans are recorded; a step uses the smallest that holds it.
const BUCKETS: [u32; 4] = [1, ops::MATVEC_ROWS, 64, MAX_ROWS as u32];
/// Decode steps that are submitted before the first of them is read.
const AHEAD: usize = 4;
/// Rows whose logits are computed at a time by [`Engine::logits`].
const LOGIT_ROWS: u32 = 64;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kv {
    /// Half precision: half the memory and half the bytes read.
    #[default]
    F16,
    /// Single precision: exact arithmetic.
    F32,
}

/// What an engine is made for.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Sequences at a time.
    pub slots: u32,
    /// Tokens of text in a sequence; meta tokens come on top.
    pub context: u32,
    /// How keys and values are kept.
    pub kv: Kv,
    /// The scan of prefill.
    pub scan: Scan,
    /// Rows of one prefill step, at most 512. Fewer bound the time of one submission on slow devices.
    pub prefill_rows: u32,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { slots: 1, context: 4096, kv: Kv::F16, scan: Scan::Serial, prefill_rows: MAX_ROWS as u32 }
    }
}

/// Tokens of one sequence in a step.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The slot of the sequence.
    pub slot: u32,
    /// The tokens that come next in it.
    pub tokens: &'a [u32],
    /// Whether to choose the token after them.
    pub pick: bool,
}

/// What [`Engine::generate`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `done` of `total` tokens of the prompt are processed.
    Prefill {
        /// Tokens that are processed.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// The next token of the answer.
    Token(u32),
}

/// A sequence as it was at one moment.
#[derive(Debug)]
pub struct Snapshot {
    saved: Saved,
    seen: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// Positions that are filled, meta tokens included. Nothing before `begin` and after a run-over.
    position: Option<u32>,
    sampling: Sampling,
    /// Bits of the tokens in the sequence.
    seen: Vec<u32>,
}

/// Which rows' logits a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ends {
    /// None: a chunk of a prompt that goes on.
    None,
    /// One for each segment, in order; every segment is one row.
    Rows(u32),
    /// One for each segment, gathered.
    Gathered(u32),
    /// All rows, kept for reading.
    All,
}

/// Model, arena and plans on one device.
#[derive(Debug)]
pub struct Engine {
    exec: Exec,
    model: Model,
    options: EngineOptions,
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
    /// [LOGIT_ROWS, vocab_size], once [`Engine::logits`] was called.
    all_logits: Option<Buf>,
    bodies: HashMap<(u32, bool), Plan>,
    ends: HashMap<Ends, Plan>,
    slots: Vec<Slot>,
    /// The sequence of meta tokens that every fresh sequence begins with.
    prefix: Option<Saved>,
}

fn bucket(rows: u32) -> u32 {
    BUCKETS.into_iter().find(|&bucket| bucket >= rows).unwrap_or(MAX_ROWS as u32)
}

fn prompt(why: String, next: &'static str) -> Error {
    Error::Prompt { why, next }
}

impl Engine {
    /// Allocates what sequences need and computes the meta tokens' memory, once.
    ///
    /// # Errors
    /// [`Error::Parameter`] for options out of range, [`Error::Limit`] and [`Error::OutOfMemory`] if the device
    /// cannot hold the context, [`Error::Device`].
    pub async fn new(mut exec: Exec, model: Model, options: EngineOptions) -> Result<Engine> {
        let EngineOptions { slots, context, kv, prefill_rows, .. } = options;
        let range = |name, value: u32, most: u32| match value {
            1.. if value <= most => Ok(()),
            _ => Err(Error::Parameter { name, why: format!("{value} is not from 1 to {most}") }),
        };
        range("slots", slots, MAX_ROWS as u32)?;
        range("context", context, 1 << 24)?;
        range("prefill_rows", prefill_rows, MAX_ROWS as u32)?;
        let config = &model.config;
        let positions = config.memory_tokens + context;
        let blocks = || model.layers.iter().map(|(_, block)| block);
        let exec_ref = &mut exec;
        let arena = Arena::alloc(exec_ref, blocks(), slots, positions, kv == Kv::F16).await?;
        let rows = bucket(prefill_rows.max(slots).max(config.memory_tokens.min(MAX_ROWS as u32)));
        let widths = blocks().map(Block::widths);
        let scratch = Scratch::alloc(exec_ref, rows, slots, positions, config.hidden_size, widths).await?;
        let rotaries = rotaries(exec_ref, blocks(), positions).await?;
        let ends = u64::from(bucket(slots));
        let [vocab, hidden] = [config.vocab_size, config.hidden_size].map(u64::from);
        let seen = u64::from(slots) * vocab.div_ceil(32);
        let mut engine = Engine {
            batch: exec.alloc("batch", BATCH_WORDS, Elem::U32).await?,
            picked: exec.alloc("picked", slots.into(), Elem::U32).await?,
            sampling: exec.alloc("sampling", u64::from(slots) * SAMPLING_WORDS, Elem::U32).await?,
            seen: exec.alloc("seen", seen, Elem::U32).await?,
            last: exec.alloc("last rows", ends * hidden, Elem::F32).await?,
            logits: exec.alloc("logits", ends * vocab, Elem::F32).await?,
            all_logits: None,
            exec,
            model,
            options,
            arena,
            rotaries,
            scratch,
            bodies: HashMap::new(),
            ends: HashMap::new(),
            slots: vec![Slot::default(); slots as usize],
            prefix: None,
        };
        engine.compute_prefix().await?;
        // The plan of every decode step is made now, so that nothing compiles during the first token.
        engine.prepare(1, true, Ends::Rows(1)).await?;
        Ok(engine)
    }

    /// Runs the meta tokens through slot 0 and keeps what they leave (spec 3.1).
    async fn compute_prefix(&mut self) -> Result<()> {
        let Config { vocab_size, memory_tokens, .. } = self.model.config;
        if memory_tokens == 0 {
            return Ok(());
        }
        let ids: Vec<u32> = (vocab_size..vocab_size + memory_tokens).collect();
        let mut position = 0;
        for chunk in ids.chunks(self.options.prefill_rows as usize) {
            let mut batch = Batch::default();
            batch.push(0, position, chunk, false);
            position += chunk.len() as u32;
            // One meta token on its own still needs the plan that knows meta tokens.
            let ticket = self.submit(&batch, false, Ends::None, true).await?;
            self.exec.collect(ticket).await?;
        }
        self.prefix = Some(self.arena.save(&mut self.exec, 0, memory_tokens).await?);
        Ok(())
    }

    /// What the model is.
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

    /// Closes the engine and gives the device back, with its compiled kernels and without any buffer.
    pub fn into_exec(mut self) -> Exec {
        self.exec.clear();
        self.exec
    }

    /// The options it was made with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Tokens of text that a sequence can hold.
    pub fn context(&self) -> u32 {
        self.options.context
    }

    /// Bytes of (weights, arena, scratch) on the device.
    pub fn device_bytes(&self) -> (u64, u64, u64) {
        let small = [self.batch, self.picked, self.sampling, self.seen, self.last, self.logits];
        let ends = small.iter().map(Buf::bytes).sum::<u64>() + self.all_logits.map_or(0, |buf| buf.bytes());
        let rotary: u64 = self.rotaries.iter().flatten().map(Buf::bytes).sum();
        (self.model.bytes(), self.arena.bytes(), self.scratch.bytes() + ends + rotary)
    }

    fn slot(&mut self, slot: u32) -> Result<&mut Slot> {
        let slots = self.slots.len();
        self.slots.get_mut(slot as usize).ok_or_else(|| Error::Parameter {
            name: "slot",
            why: format!("{slot} is not one of the {slots} slots of this engine"),
        })
    }

    /// Tokens of text in a slot.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there is no such slot, [`Error::Prompt`] if it holds no sequence.
    pub fn position(&mut self, slot: u32) -> Result<u32> {
        let meta = self.model.config.memory_tokens;
        self.slot(slot)?
            .position
            .map(|position| position - meta)
            .ok_or_else(|| prompt(format!("slot {slot} holds no sequence"), "Begin one, or restore a snapshot, first"))
    }

    /// Begins a fresh sequence in a slot: the meta tokens' memory is copied in, nothing is computed.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a setting is out of range or there is no such slot.
    pub fn begin(&mut self, slot: u32, sampling: &Sampling) -> Result<()> {
        sampling.validate()?;
        let words = self.model.config.vocab_size.div_ceil(32) as usize;
        let position = self.model.config.memory_tokens;
        *self.slot(slot)? = Slot { position: Some(position), sampling: *sampling, seen: vec![0; words] };
        if let Some(prefix) = &self.prefix {
            self.arena.load(&mut self.exec, slot, prefix)?;
        }
        self.exec.write(self.sampling, u64::from(slot) * SAMPLING_WORDS, &sampling.words());
        Ok(())
    }

    /// Changes how the next tokens of a slot are chosen.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a setting is out of range or there is no such slot.
    pub fn set_sampling(&mut self, slot: u32, sampling: &Sampling) -> Result<()> {
        sampling.validate()?;
        self.slot(slot)?.sampling = *sampling;
        self.exec.write(self.sampling, u64::from(slot) * SAMPLING_WORDS, &sampling.words());
        Ok(())
    }

    /// Keeps a sequence as it is now, to come back to with [`Engine::restore`].
    ///
    /// # Errors
    /// [`Error::Prompt`] if the slot holds no sequence, [`Error::OutOfMemory`].
    pub async fn snapshot(&mut self, slot: u32) -> Result<Snapshot> {
        let position = self.position(slot)? + self.model.config.memory_tokens;
        let saved = self.arena.save(&mut self.exec, slot, position).await?;
        Ok(Snapshot { saved, seen: self.slots[slot as usize].seen.clone() })
    }

    /// Puts a slot back to a snapshot, of this or another slot. The slot's own sampling goes on.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there is no such slot.
    pub fn restore(&mut self, slot: u32, snapshot: &Snapshot) -> Result<()> {
        let sampling = self.slot(slot)?.sampling;
        self.arena.load(&mut self.exec, slot, &snapshot.saved)?;
        let state = self.slot(slot)?;
        state.position = Some(snapshot.saved.position);
        state.seen.clone_from(&snapshot.seen);
        // The device knows nothing of a slot that never began a sequence.
        self.set_sampling(slot, &sampling)
    }

    /// Gives a snapshot's memory back.
    pub fn release(&mut self, snapshot: Snapshot) {
        self.arena.drop_saved(&mut self.exec, snapshot.saved);
    }

    /// Checks that tokens fit into a slot, and marks them as seen.
    fn feed(&mut self, slot: u32, tokens: &[u32]) -> Result<u32> {
        self.model.check_ids(tokens)?;
        if tokens.is_empty() {
            return Err(prompt("it has no tokens".into(), "Give at least one"));
        }
        let (used, context) = (self.position(slot)?, self.options.context);
        if tokens.len() as u64 > u64::from(context - used) {
            let why = format!("{} tokens do not fit: {used} of {context} are used", tokens.len());
            return Err(prompt(why, "Use a shorter prompt or a longer context (`--context`)"));
        }
        let state = &mut self.slots[slot as usize];
        for &token in tokens {
            state.seen[token as usize / 32] |= 1 << (token % 32);
        }
        if state.sampling.repetition_penalty != 1.0 {
            let at = u64::from(slot) * state.seen.len() as u64;
            self.exec.write(self.seen, at, &state.seen);
        }
        Ok(used + self.model.config.memory_tokens)
    }

    /// One step over the next tokens of any sequences, each slot at most once and at most 512 tokens in all.
    /// Returns the chosen token of each piece that picks.
    ///
    /// # Errors
    /// [`Error::Prompt`] for tokens that do not fit, [`Error::NonFinite`], [`Error::Device`].
    pub async fn step(&mut self, pieces: &[Piece<'_>]) -> Result<Vec<Option<u32>>> {
        let rows: usize = pieces.iter().map(|piece| piece.tokens.len()).sum();
        let most = self.scratch.x.len / u64::from(self.model.config.hidden_size);
        if rows as u64 > most {
            return Err(prompt(format!("a step of {rows} tokens, of at most {most}"), "Use several steps"));
        }
        let mut batch = Batch::default();
        for (i, piece) in pieces.iter().enumerate() {
            if pieces[..i].iter().any(|other| other.slot == piece.slot) {
                return Err(prompt(format!("slot {} twice in one step", piece.slot), "Use one piece for each slot"));
            }
            let position = self.feed(piece.slot, piece.tokens)?;
            batch.push(piece.slot, position, piece.tokens, piece.pick);
        }
        let steps = batch.segments.iter().all(|segment| segment.rows == 1);
        let ends = bucket(batch.segments.len() as u32);
        let ends = match (pieces.iter().any(|piece| piece.pick), steps) {
            (false, _) => Ends::None,
            (true, true) => Ends::Rows(ends),
            (true, false) => Ends::Gathered(ends),
        };
        let ticket = self.submit(&batch, steps, ends, true).await?;
        let picked = self.exec.collect(ticket).await?;
        let mut out = vec![];
        for piece in pieces {
            let state = &mut self.slots[piece.slot as usize];
            let position = state.position.unwrap_or(0) + piece.tokens.len() as u32;
            state.position = Some(position);
            out.push(if piece.pick { Some(finite(picked[piece.slot as usize], position)?) } else { None });
        }
        Ok(out)
    }

    /// Records and prepares the plans of a kind of step, once.
    async fn prepare(&mut self, rows: u32, steps: bool, ends: Ends) -> Result<()> {
        if !self.bodies.contains_key(&(rows, steps)) {
            let run = Run {
                rows,
                steps,
                scan: self.options.scan,
                kv_f16: self.options.kv == Kv::F16,
                slots: self.options.slots,
                positions: self.arena.positions,
                eps: self.model.config.rms_norm_eps,
                batch: self.batch,
                scratch: &self.scratch,
            };
            let memories: Vec<_> = self.arena.bufs().zip(self.rotaries.iter().copied()).collect();
            let mut plan = Plan::default();
            self.model.forward(&mut plan, &run, self.picked, &memories);
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

    fn record_ends(&self, plan: &mut Plan, ends: Ends) {
        let Config { vocab_size: vocab, hidden_size: width, .. } = self.model.config;
        let slots = self.options.slots;
        let x = match ends {
            Ends::None => return,
            Ends::All => {
                let logits = self.all_logits.expect("allocated by logits()");
                return self.model.logits(plan, LOGIT_ROWS, self.scratch.x, self.scratch.h, logits);
            }
            Ends::Rows(_) => self.scratch.x,
            Ends::Gathered(segments) => {
                plan.part = "head";
                let rows = (self.scratch.x.len / u64::from(width)) as u32;
                plan.add(ops::GatherLast { rows, segments, width }, &[self.batch, self.scratch.x, self.last]);
                self.last
            }
        };
        let (Ends::Rows(rows) | Ends::Gathered(rows)) = ends else { return };
        self.model.logits(plan, rows, x, self.scratch.h, self.logits);
        plan.part = "pick";
        let bufs = [self.batch, self.logits, self.sampling, self.seen, self.picked];
        plan.add(ops::Pick { rows, vocab, slots }, &bufs);
    }

    /// Submits a step. `write` is false if the device already holds the batch, advanced by the last pick.
    async fn submit(&mut self, batch: &Batch, steps: bool, ends: Ends, write: bool) -> Result<Ticket> {
        let size = batch.size();
        let rows = bucket(size.rows);
        self.prepare(rows, steps, ends).await?;
        if write {
            self.exec.write(self.batch, 0, &batch.words());
        }
        let ends_size = match ends {
            Ends::All => size,
            _ => Size { rows: size.segments, segments: size.segments },
        };
        let plans = [(&self.bodies[&(rows, steps)], size), (&self.ends[&ends], ends_size)];
        let read = (ends != Ends::None).then_some((self.picked, u64::from(self.options.slots)));
        self.exec.submit(&plans, read)
    }

    /// Runs a prompt through a slot and chooses up to `max_tokens` tokens after it. `on_event` hears of every
    /// prefill step and every token, and stops the run with `Break`.
    ///
    /// The device runs a few steps ahead of the tokens that are reported, so the slot holds no usable sequence
    /// afterwards: [`Engine::begin`] or [`Engine::restore`] it.
    ///
    /// # Errors
    /// [`Error::Prompt`] if prompt and answer do not fit, [`Error::NonFinite`], [`Error::Device`].
    pub async fn generate(
        &mut self,
        slot: u32,
        ids: &[u32],
        max_tokens: u32,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut position = self.feed(slot, ids)?;
        let room = self.arena.positions - position - ids.len() as u32;
        // The last token chosen is not run through the model, so one more than the room can be chosen.
        let max_tokens = max_tokens.min(room + 1);
        self.slots[slot as usize].position = None;
        let chunk = self.options.prefill_rows as usize;
        let mut first = None;
        for (i, tokens) in ids.chunks(chunk).enumerate() {
            let done = i * chunk + tokens.len();
            let pick = done == ids.len() && max_tokens > 0;
            let mut batch = Batch::default();
            batch.push(slot, position, tokens, pick);
            position += tokens.len() as u32;
            let steps = tokens.len() == 1;
            let ends = match (pick, steps) {
                (false, _) => Ends::None,
                (true, true) => Ends::Rows(1),
                (true, false) => Ends::Gathered(1),
            };
            let ticket = self.submit(&batch, steps, ends, true).await?;
            let picked = self.exec.collect(ticket).await?;
            first = pick.then(|| picked[slot as usize]);
            if on_event(Event::Prefill { done, total: ids.len() }).is_break() {
                return Ok(());
            }
        }
        let Some(first) = first else { return Ok(()) };
        if on_event(Event::Token(finite(first, position)?)).is_break() {
            return Ok(());
        }
        self.decode(slot, position, max_tokens - 1, on_event).await
    }

    /// The decode loop stays on the device: the kernel that picks a token writes it where the next step reads it,
    /// so a step is submitted before the last one's token is read.
    async fn decode(
        &mut self,
        slot: u32,
        mut position: u32,
        tokens: u32,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut batch = Batch::default();
        batch.push(slot, position, &[PICKED], true);
        let ahead = if matches!(self.exec, Exec::Cpu(_)) { 1 } else { AHEAD };
        let mut flying = VecDeque::with_capacity(ahead);
        let (mut submitted, mut result) = (0, ControlFlow::Continue(()));
        while result.is_continue() && (submitted < tokens || !flying.is_empty()) {
            while flying.len() < ahead && submitted < tokens {
                flying.push_back(self.submit(&batch, true, Ends::Rows(1), submitted == 0).await?);
                submitted += 1;
            }
            let Some(ticket) = flying.pop_front() else { break };
            position += 1;
            let token = finite(self.exec.collect(ticket).await?[slot as usize], position)?;
            result = on_event(Event::Token(token));
        }
        for ticket in flying {
            self.exec.collect(ticket).await?;
        }
        Ok(())
    }

    /// Logits [tokens, vocab_size] of the next tokens of a slot.
    ///
    /// # Errors
    /// [`Error::Prompt`] for tokens that do not fit, [`Error::Limit`], [`Error::Device`].
    pub async fn logits(&mut self, slot: u32, ids: &[u32]) -> Result<Vec<f32>> {
        let mut position = self.feed(slot, ids)?;
        let vocab = self.model.config.vocab_size as usize;
        if self.all_logits.is_none() {
            let len = u64::from(LOGIT_ROWS) * vocab as u64;
            self.all_logits = Some(self.exec.alloc("logits of all rows", len, Elem::F32).await?);
        }
        let logits = self.all_logits.expect("allocated above");
        let mut out = Vec::with_capacity(ids.len() * vocab);
        let rows = LOGIT_ROWS.min(self.options.prefill_rows);
        for tokens in ids.chunks(rows as usize) {
            let mut batch = Batch::default();
            batch.push(slot, position, tokens, false);
            position += tokens.len() as u32;
            let ticket = self.submit(&batch, tokens.len() == 1, Ends::All, true).await?;
            self.exec.collect(ticket).await?;
            let words = self.exec.read(logits).await?;
            out.extend_from_slice(bytemuck::cast_slice(&words[..tokens.len() * vocab]));
        }
        self.slots[slot as usize].position = Some(position);
        Ok(out)
    }

    /// The plans of one decode step of one sequence, in order.
    pub fn decode_plans(&self) -> [&Plan; 2] {
        [&self.bodies[&(1, true)], &self.ends[&Ends::Rows(1)]]
    }
}

fn finite(token: u32, position: u32) -> Result<u32> {
    if token == NOT_FINITE { Err(Error::NonFinite { position }) } else { Ok(token) }
}

/// A table of angles for each attention block, shared where base and width are the same. Angles are computed in
/// f64 (WGSL promises no precision for large ones): [positions, head_dim / 8, cos | sin, 4].
async fn rotaries<'a>(
    exec: &mut Exec,
    blocks: impl Iterator<Item = &'a Block>,
    positions: u32,
) -> Result<Vec<Option<Buf>>> {
    let mut tables: Vec<((Option<f64>, u32), Buf)> = vec![];
    let mut out = vec![];
    for block in blocks {
        let Block::Attention(attention) = block else {
            out.push(None);
            continue;
        };
        let key = attention.rotary();
        let known = tables.iter().find(|(other, _)| *other == key).map(|(_, buf)| *buf);
        let buf = match known {
            Some(buf) => buf,
            None => {
                let (theta, head_dim) = key;
                let buf = exec.alloc("rotary table", u64::from(positions) * u64::from(head_dim), Elem::F32).await?;
                // In pieces, so that a long context needs no second copy in memory.
                for first in (0..positions).step_by(1024) {
                    let rows = 1024.min(positions - first);
                    let words: Vec<u32> = (first..first + rows).flat_map(|p| angles(theta, head_dim, p)).collect();
                    exec.write(buf, u64::from(first) * u64::from(head_dim), &words);
                }
                tables.push((key, buf));
                buf
            }
        };
        out.push(Some(buf));
    }
    Ok(out)
}

fn angles(theta: Option<f64>, head_dim: u32, position: u32) -> impl Iterator<Item = u32> {
    (0..head_dim / 8).flat_map(move |quad| {
        let angle = move |j: u32| {
            theta.map_or(0.0, |base| f64::from(position) * base.powf(-2.0 * f64::from(j) / f64::from(head_dim)))
        };
        let four = move |f: fn(f64) -> f64| (4 * quad..4 * quad + 4).map(move |j| (f(angle(j)) as f32).to_bits());
        four(f64::cos).chain(four(f64::sin))
    })
}
