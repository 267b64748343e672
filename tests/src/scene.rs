//! Runs the two operators that choose a token, with given logits, on any device.

use crate::{Mode, targets};
use nemoflash::batch::{Batch, Size};
use nemoflash::op::Op;
use nemoflash::ops::{Pick, PickScan};
use nemoflash::plan::Plan;
use nemoflash::sampling::seen;
use nemoflash::{Buf, Exec, Sampling};

/// The inputs of a choice. Each list has an element for each segment.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// The segment's logits.
    pub logits: Vec<Vec<f32>>,
    /// The settings of its slot.
    pub how: Vec<Sampling>,
    /// The tokens that its slot has seen.
    pub seen: Vec<Vec<u32>>,
    /// The position of its last row.
    pub position: Vec<u32>,
    /// Its rows.
    pub rows: Vec<u32>,
}

impl Scene {
    /// Adds a segment of one row.
    ///
    /// # Panics
    /// If the settings are out of range.
    pub fn add(&mut self, logits: &[f32], how: Sampling, seen: &[u32], position: u32) {
        how.validate().expect("a test's settings are valid");
        self.logits.push(logits.to_vec());
        self.how.push(how);
        self.seen.push(seen.to_vec());
        self.position.push(position);
        self.rows.push(1);
    }

    /// A scene with the same logits for each of these settings and positions.
    pub fn of(logits: &[f32], each: impl IntoIterator<Item = (Sampling, u32)>) -> Scene {
        let mut scene = Scene::default();
        each.into_iter().for_each(|(how, position)| scene.add(logits, how, &[], position));
        scene
    }

    /// Number of tokens of the vocabulary.
    ///
    /// # Panics
    /// If there is no segment.
    pub fn vocab(&self) -> u32 {
        self.logits[0].len() as u32
    }

    /// Segment i has slot len - 1 - i, so that a slot is not mistaken for a segment.
    fn batch(&self) -> Batch {
        let (mut batch, last) = (Batch::default(), self.how.len() as u32 - 1);
        for (i, (&position, &rows)) in (0..).zip(self.position.iter().zip(&self.rows)) {
            batch.push(last - i, position + 1 - rows, &vec![i; rows as usize], true);
        }
        batch
    }

    /// The plan of one step, its buffers in the order of [`Pick`]'s bindings, and its size.
    ///
    /// # Panics
    /// If the device fails.
    pub fn buffers(&self, exec: &mut Exec) -> (Plan, Vec<Buf>, Size) {
        let [rows, vocab, slots] = [self.how.len() as u32, self.vocab(), self.how.len() as u32];
        self.buffers_of(Pick { rows, vocab, slots }, exec)
    }

    /// As [`Scene::buffers`], with another operator that has the same bindings instead of [`Pick`].
    ///
    /// # Panics
    /// As [`Scene::buffers`].
    pub fn buffers_of(&self, pick: impl Op, exec: &mut Exec) -> (Plan, Vec<Buf>, Size) {
        let [rows, vocab, slots] = [self.how.len() as u32, self.vocab(), self.how.len() as u32];
        let batch = self.batch();
        let by_slot = |words: &mut dyn FnMut(usize) -> Vec<u32>| (0..self.how.len()).rev().flat_map(words).collect();
        let words: [Vec<u32>; 7] = [
            batch.words(),
            self.logits.iter().flatten().map(|l| l.to_bits()).collect(),
            vec![],
            vec![],
            by_slot(&mut |i| self.how[i].words().to_vec()),
            by_slot(&mut |i| seen(self.vocab(), &self.seen[i])),
            vec![7; self.how.len()],
        ];
        let mut bufs = vec![];
        for ((bind, len), words) in pick.kernel().binds.iter().zip(pick.lens()).zip(&words) {
            let buf = pollster::block_on(exec.alloc(bind.name, len, bind.elem)).expect("room for a small test");
            exec.write(buf, 0, words);
            bufs.push(buf);
        }
        let mut plan = Plan::default();
        let [batch_buf, logits, maxima, scores, sampling, seen, _] = bufs[..] else { unreachable!() };
        plan.add(PickScan { rows, vocab, slots }, &[batch_buf, logits, sampling, seen, maxima, scores]);
        plan.add(pick, &bufs);
        pollster::block_on(exec.prepare(&mut plan)).expect("the kernels compile");
        (plan, bufs, batch.size())
    }

    /// Runs a step and returns its result, in the order of the segments.
    ///
    /// # Panics
    /// If the device fails.
    pub fn run(&self, exec: &mut Exec) -> Outcome {
        let made = self.buffers(exec);
        Self::run_made(made, exec)
    }

    /// As [`Scene::run`], for a plan with its buffers, which are then freed.
    ///
    /// # Panics
    /// As [`Scene::run`].
    pub fn run_made((plan, bufs, size): (Plan, Vec<Buf>, Size), exec: &mut Exec) -> Outcome {
        let (tokens, seen, batch) = pollster::block_on(async {
            let ticket = exec.submit(&[(&plan, size)], None)?;
            exec.collect(ticket).await?;
            let tokens: Vec<u32> = exec.read(bufs[6]).await?.into_iter().rev().collect();
            Ok::<_, nemoflash::Error>((tokens, exec.read(bufs[5]).await?, exec.read(bufs[0]).await?))
        })
        .unwrap_or_else(|e| panic!("{e}"));
        bufs.into_iter().for_each(|buf| exec.free(buf));
        Outcome { tokens, seen, batch: Batch::from_words(&batch) }
    }
}

/// The result of a step.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// The tokens that were chosen, in the order of the segments.
    pub tokens: Vec<u32>,
    /// The bits of the tokens that were seen, slot by slot.
    pub seen: Vec<u32>,
    /// The batch.
    pub batch: Batch,
}

/// Runs `each` on every adapter, with a name for messages. The kernel uses no optional feature, so its text is
/// the same in every mode; the suite of all operators runs it in each.
///
/// # Panics
/// If a device does not open.
pub fn on_devices(suite: &str, mut each: impl FnMut(&str, &mut Exec)) {
    for target in targets(suite).into_iter().filter(|target| target.mode == Mode::Floor) {
        let mut device = target.lend().unwrap_or_else(|e| panic!("{target}: {e}"));
        each(&device.label.clone(), &mut device.exec);
        target.give_back(device.exec);
    }
}

/// As [`on_devices`], and also on the CPU.
///
/// # Panics
/// As [`on_devices`].
pub fn everywhere(suite: &str, mut each: impl FnMut(&str, &mut Exec)) {
    each("CPU", &mut Exec::cpu());
    on_devices(suite, each);
}

/// Settings that choose the largest logit.
pub const GREEDY: Sampling =
    Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };
/// Settings that draw from all tokens.
pub const WARM: Sampling = Sampling { temperature: 1.0, ..GREEDY };
