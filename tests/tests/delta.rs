//! DeltaNet's scans against golden vectors and against each other, on the CPU and on every device.
#![forbid(unsafe_code)]

use nemoflash::batch::{BATCH_WORDS, Batch};
use nemoflash::op::floats;
use nemoflash::ops::{DeltaCarry, DeltaChunked, DeltaGates, DeltaLocal, DeltaSerial, DeltaStep, DeltaWy};
use nemoflash::plan::Plan;
use nemoflash::{Buf, Elem, Exec};
use nemoflash_tests::{Random, close, targets};
use std::collections::HashMap;

/// RMS ratio, against float64 and of one form against the other. Measured: at most 3.5e-7.
const TOLERANCE: f64 = 1.1e-6;

/// The same where cooperative matrices compute the chunks: their factors are rounded to f16. Measured on an NVIDIA H200:
/// 1.7e-3 with repeated tokens, 4.7e-4 else.
const HALF: f64 = 3e-3;

/// Runs `each` on the CPU and on every device in every mode.
fn everywhere(mut each: impl FnMut(&str, &mut Exec)) {
    each("CPU", &mut Exec::cpu());
    for target in targets("delta") {
        let mut device = target.lend().unwrap_or_else(|e| panic!("{target}: {e}"));
        each(&device.label, &mut device.exec);
        target.give_back(device.exec);
    }
}

fn put(exec: &mut Exec, name: &str, values: &[f32]) -> Buf {
    let buf = pollster::block_on(exec.alloc(name, values.len() as u64, Elem::F32)).expect(name);
    exec.write(buf, 0, bytemuck::cast_slice(values));
    buf
}

fn put_batch(exec: &mut Exec, batch: &Batch) -> Buf {
    let buf = pollster::block_on(exec.alloc("batch", BATCH_WORDS, Elem::U32)).expect("batch");
    exec.write(buf, 0, &batch.words());
    buf
}

/// Runs a plan and reads buffers; then frees `bufs`.
fn run(exec: &mut Exec, mut plan: Plan, batch: &Batch, read: &[Buf], bufs: &[Buf]) -> Vec<Vec<f32>> {
    let results = pollster::block_on(async {
        exec.prepare(&mut plan).await?;
        let ticket = exec.submit(&[(&plan, batch.size())], None)?;
        exec.collect(ticket).await?;
        let mut results = vec![];
        for buf in read {
            results.push(floats(&exec.read(*buf).await?)[..buf.len as usize].to_vec());
        }
        Ok::<_, nemoflash::Error>(results)
    });
    bufs.iter().for_each(|buf| exec.free(*buf));
    results.expect("the plan runs")
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Serial,
    Chunked,
}

impl Form {
    fn tolerance(self, exec: &Exec) -> f64 {
        if self == Form::Chunked && exec.caps().coop(48 << 10) { HALF } else { TOLERANCE }
    }
}

/// Rows of one layer after convolution, and the state of its slots.
#[derive(Clone, Debug)]
struct Layer {
    heads: u32,
    head_dim: u32,
    /// [rows, 3, heads, head_dim], q and k unit vectors.
    qkv: Vec<f32>,
    /// [rows, heads]
    beta: Vec<f32>,
    /// [slots, heads, head_dim, head_dim]
    state: Vec<f32>,
}

impl Layer {
    fn random(heads: u32, head_dim: u32, rows: usize, slots: usize, seed: u64) -> Layer {
        let mut random = Random::new(seed);
        let (heads_n, d) = (heads as usize, head_dim as usize);
        let mut qkv: Vec<f32> = (0..rows * 3 * heads_n * d).map(|_| random.normal()).collect();
        for (i, x) in qkv.chunks_mut(d).enumerate() {
            let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt();
            x.iter_mut().for_each(|x| *x /= if i / heads_n % 3 < 2 { norm } else { 1.0 });
        }
        let beta = (0..rows * heads_n).map(|_| random.uniform()).collect();
        let state = (0..slots * heads_n * d * d).map(|_| 0.3 * random.normal()).collect();
        Layer { heads, head_dim, qkv, beta, state }
    }

    /// Runs segments (slot, position, rows), all in one step; leaves the new state and returns
    /// [rows, heads, head_dim].
    fn scan(&mut self, exec: &mut Exec, form: Form, segments: &[(u32, u32, u32)]) -> Vec<f32> {
        let Layer { heads, head_dim, .. } = *self;
        let mut batch = Batch::default();
        for &(slot, position, rows) in segments {
            batch.push(slot, position, &vec![0; rows as usize], false);
        }
        let rows = batch.rows.len() as u32;
        let width = (heads * head_dim) as usize;
        // A slot has more in it than the state.
        let (state_at, used) = (12 * heads * head_dim, heads * head_dim * head_dim);
        let slot_len = state_at + used;
        let slots = self.state.len() as u32 / used;
        let mut memory = vec![7.0f32; (slots * slot_len) as usize];
        for (slot, state) in memory.chunks_mut(slot_len as usize).zip(self.state.chunks(used as usize)) {
            slot[state_at as usize..].copy_from_slice(state);
        }

        let b = put_batch(exec, &batch);
        let qkv = put(exec, "qkv", &self.qkv[..rows as usize * 3 * width]);
        let beta = put(exec, "beta", &self.beta[..(rows * heads) as usize]);
        let state = put(exec, "state", &memory);
        let out = put(exec, "out", &vec![f32::NAN; rows as usize * width]);
        let mut bufs = vec![b, qkv, beta, state, out];
        let mut plan = Plan::default();
        match form {
            Form::Serial => {
                let op = DeltaSerial { rows, heads, head_dim, slots, slot_len, state_at };
                plan.add(op, &[b, qkv, beta, state, out]);
            }
            Form::Chunked if exec.caps().coop(48 << 10) && head_dim <= DeltaLocal::MAX_HEAD => {
                let op = DeltaLocal { rows, heads, head_dim };
                // Filled with what is NaN both as f32 and as two f16.
                let [wqk, u, attn] = [(0, Elem::F16), (1, Elem::F32), (2, Elem::F16)].map(|(i, elem)| {
                    let buf = pollster::block_on(exec.alloc("results", op.results()[i], elem)).expect("memory");
                    exec.write(buf, 0, &vec![0x7fff_7fff; elem.words(buf.len) as usize]);
                    buf
                });
                bufs.extend([wqk, u, attn]);
                plan.add(op, &[b, qkv, beta, wqk, u, attn]);
                let op = DeltaCarry { rows, heads, head_dim, slots, slot_len, state_at };
                plan.add(op, &[b, wqk, u, attn, state, out]);
            }
            Form::Chunked => {
                let rest = vec![f32::NAN; rows as usize * width];
                let (w, u) = (put(exec, "w", &rest), put(exec, "u", &rest));
                let attn = put(exec, "attn", &vec![f32::NAN; (rows * heads * DeltaWy::CHUNK) as usize]);
                bufs.extend([w, u, attn]);
                plan.add(DeltaWy { rows, heads, head_dim }, &[b, qkv, beta, w, u, attn]);
                let op = DeltaChunked { rows, heads, head_dim, slots, slot_len, state_at };
                plan.add(op, &[b, qkv, w, u, attn, state, out]);
            }
        }
        let results = run(exec, plan, &batch, &[out, state], &bufs);
        for (slot, state) in results[1].chunks(slot_len as usize).zip(self.state.chunks_mut(used as usize)) {
            assert!(slot[..state_at as usize].iter().all(|v| *v == 7.0), "the rest of the slot is left alone");
            state.copy_from_slice(&slot[state_at as usize..]);
        }
        results[0].clone()
    }

    /// Any number of rows of one slot, at most 512 a step.
    fn long(&self, exec: &mut Exec, form: Form, slot: u32, position: u32, rows: u32) -> (Vec<f32>, Vec<f32>) {
        let mut left = self.clone();
        let mut out = vec![];
        let width = (self.heads * self.head_dim) as usize;
        for first in (0..rows).step_by(512) {
            let now = (rows - first).min(512);
            out.extend(left.scan(exec, form, &[(slot, position + first, now)]));
            left.qkv.drain(..now as usize * 3 * width);
            left.beta.drain(..(now * self.heads) as usize);
        }
        (out, left.state)
    }
}

/// The tensors `case.*` of the golden file.
fn golden(case: &str) -> HashMap<String, (Vec<usize>, Vec<f32>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/ops.safetensors");
    let bytes = std::fs::read(path).expect("the golden file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let of_case = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let name = name.strip_prefix(case)?.strip_prefix('.')?.to_string();
        Some((name, (view.shape().to_vec(), bytemuck::pod_collect_to_vec(view.data()))))
    };
    file.tensors().into_iter().filter_map(of_case).collect()
}

#[test]
fn scans_match_golden() {
    for case in ["delta_rule_t1_k64", "delta_rule_t63_k64", "delta_rule_t130_k128"] {
        let tensors = golden(case);
        let [rows, heads, d] = tensors["q"].0[..] else { panic!("shape of q") };
        let of = |name: &str| &tensors[name].1;
        let mut qkv = vec![];
        for row in 0..rows {
            ["q", "k", "v"].iter().for_each(|name| qkv.extend(&of(name)[row * heads * d..][..heads * d]));
        }
        // The golden state is in slot 1; slot 0 must not matter.
        let state = [vec![0.5; heads * d * d], of("state_in").clone()].concat();
        let layer = Layer { heads: heads as u32, head_dim: d as u32, qkv, beta: of("beta").clone(), state };
        everywhere(|device, exec| {
            for form in [Form::Serial, Form::Chunked] {
                let tolerance = form.tolerance(exec);
                let check = |what: &str, want: &[f32], got: &[f32]| {
                    close(&format!("{case} {what}, {form:?} on {device}"), want, got, tolerance)
                };
                let (out, state) = layer.long(exec, form, 1, 9, rows as u32);
                check("out", of("out"), &out).unwrap();
                check("state", of("state_out"), &state[heads * d * d..]).unwrap();
                assert!(state[..heads * d * d].iter().all(|v| *v == 0.5), "slot 0 on {device}");

                // Negative controls: a missing scale, a state that starts from zero, one wrong beta.
                let unscaled: Vec<f32> = out.iter().map(|o| o * (d as f32).sqrt()).collect();
                assert!(check("unscaled", of("out"), &unscaled).is_err());
                let (out, state) = layer.long(exec, form, 1, 0, rows as u32);
                assert!(check("from zero", of("out"), &out).is_err());
                assert!(check("from zero", of("state_out"), &state[heads * d * d..]).is_err());
                let mut wrong = layer.clone();
                wrong.beta[rows / 2 * heads] += 0.3;
                let (out, _) = wrong.long(exec, form, 1, 9, rows as u32);
                assert!(check("wrong beta", of("out"), &out).is_err());
            }
        });
    }
}

#[test]
fn chunked_equals_serial() {
    everywhere(|device, exec| {
        for (rows, heads, head_dim) in
            [(1, 2, 64), (2, 2, 64), (63, 2, 64), (64, 1, 128), (65, 2, 64), (127, 1, 96), (1024, 1, 64), (8192, 1, 16)]
        {
            let layer = Layer::random(heads, head_dim, rows, 2, rows as u64);
            let (want, want_state) = layer.long(exec, Form::Serial, 1, 5, rows as u32);
            let (got, state) = layer.long(exec, Form::Chunked, 1, 5, rows as u32);
            let name = format!("{rows} rows on {device}");
            let tolerance = Form::Chunked.tolerance(exec);
            close(&format!("{name}: out"), &want, &got, tolerance).unwrap();
            close(&format!("{name}: state"), &want_state, &state, tolerance).unwrap();
            // Negative control: the last row's key, which both forms use last.
            let mut wrong = layer.clone();
            let at = ((rows - 1) * 3 + 1) * (heads * head_dim) as usize;
            wrong.qkv[at] += 3.0;
            let (got, state) = wrong.long(exec, Form::Chunked, 1, 5, rows as u32);
            assert!(close("wrong key", &want_state, &state, tolerance).is_err());
            let last = want.len() - (heads * head_dim) as usize;
            assert!(close("wrong key", &want[last..], &got[last..], tolerance).is_err());
        }
    });
}

/// A token that repeats makes all keys of a chunk equal, and with beta 1 the triangular solve as hard as it gets:
/// powers of its matrix grow to 1e8.
#[test]
fn repeated_tokens() {
    everywhere(|device, exec| {
        let mut layer = Layer::random(1, 64, 128, 1, 3);
        let first = layer.qkv[..3 * 64].to_vec();
        layer.qkv.chunks_mut(3 * 64).for_each(|row| row[..128].copy_from_slice(&first[..128]));
        layer.beta.fill(1.0);
        let (want, want_state) = layer.long(&mut Exec::cpu(), Form::Serial, 0, 5, 128);
        for form in [Form::Serial, Form::Chunked] {
            let ((got, state), tolerance) = (layer.long(exec, form, 0, 5, 128), form.tolerance(exec));
            close(&format!("repeated tokens: out, {form:?} on {device}"), &want, &got, tolerance).unwrap();
            close(&format!("repeated tokens: state, {form:?} on {device}"), &want_state, &state, tolerance).unwrap();
        }
        layer.beta[100] = 0.5;
        let (got, _) = layer.long(exec, Form::Chunked, 0, 5, 128);
        assert!(close("wrong beta", &want, &got, Form::Chunked.tolerance(exec)).is_err());
    });
}

#[test]
fn segments_do_not_touch_each_other() {
    everywhere(|device, exec| {
        let (heads, head_dim) = (2, 64);
        let width = (heads * head_dim) as usize;
        let both = Layer::random(heads, head_dim, 33 + 65, 3, 7);
        for form in [Form::Serial, Form::Chunked] {
            // Slot 2 goes on from position 40, slot 0 begins; slot 1 rests.
            let mut together = both.clone();
            let out = together.scan(exec, form, &[(2, 40, 33), (0, 0, 65)]);
            let mut alone = both.clone();
            let mut want = alone.scan(exec, form, &[(2, 40, 33)]);
            alone.qkv.drain(..33 * 3 * width);
            alone.beta.drain(..33 * heads as usize);
            let mut swapped = alone.clone();
            want.extend(alone.scan(exec, form, &[(0, 0, 65)]));
            assert_eq!(out, want, "{form:?} on {device}: out");
            assert_eq!(together.state, alone.state, "{form:?} on {device}: state");
            assert_eq!(both.state[together.state.len() / 3..][..10], together.state[together.state.len() / 3..][..10]);
            // Negative control: the other slot.
            let wrong = swapped.scan(exec, form, &[(1, 40, 65)]);
            assert_ne!(wrong, want[33 * width..], "{form:?} on {device}: another slot");
        }
    });
}

#[test]
fn outliers_stay_finite() {
    everywhere(|device, exec| {
        let mut layer = Layer::random(2, 64, 70, 1, 11);
        layer.qkv[2 * 128 + 5] = 6e4;
        layer.qkv[(31 * 3 + 2) * 128 + 70] = -1e5;
        layer.qkv[(69 * 3 + 2) * 128] = 1e5;
        let (want, want_state) = layer.long(&mut Exec::cpu(), Form::Serial, 0, 1, 70);
        for form in [Form::Serial, Form::Chunked] {
            let ((out, state), tolerance) = (layer.long(exec, form, 0, 1, 70), form.tolerance(exec));
            close(&format!("outliers: out, {form:?} on {device}"), &want, &out, tolerance).unwrap();
            close(&format!("outliers: state, {form:?} on {device}"), &want_state, &state, tolerance).unwrap();
            // Negative control: what is beyond f32 is noticed. f16 has the largest number instead.
            let mut beyond = layer.clone();
            beyond.qkv[2 * 128 + 5] = f32::INFINITY;
            let (out, _) = beyond.long(exec, form, 0, 1, 70);
            let noticed = close("infinite", &want, &out, tolerance).unwrap_err();
            assert!(noticed.contains("not finite") || tolerance == HALF, "{noticed}");
        }
    });
}

/// Weights and numbers of a block's decode step.
#[derive(Clone, Debug)]
struct Block {
    heads: u32,
    head_dim: u32,
    /// [3 * heads * head_dim, 4]
    conv: Vec<f32>,
    /// [head_dim]
    norm: Vec<f32>,
}

impl Block {
    fn channels(&self) -> usize {
        (3 * self.heads * self.head_dim) as usize
    }

    fn slot_len(&self) -> usize {
        4 * self.channels() + (self.heads * self.head_dim * self.head_dim) as usize
    }

    /// One token for each of `rows` (slot, position); `state` [slots, slot_len] moves on.
    fn step(&self, exec: &mut Exec, rows: &[(u32, u32)], p: &[f32], state: &mut Vec<f32>) -> Vec<f32> {
        let Block { heads, head_dim, .. } = *self;
        let mut batch = Batch::default();
        rows.iter().for_each(|&(slot, position)| batch.push(slot, position, &[0], true));
        let op = DeltaStep {
            rows: rows.len() as u32,
            heads,
            head_dim,
            in_stride: (p.len() / rows.len()) as u32,
            slots: (state.len() / self.slot_len()) as u32,
            slot_len: self.slot_len() as u32,
            state_at: 4 * self.channels() as u32,
            eps: 1e-5,
        };
        let b = put_batch(exec, &batch);
        let [p, conv, norm, memory, out] = [
            ("p", p),
            ("conv", &self.conv),
            ("w", &self.norm),
            ("state", state),
            ("out", &vec![f32::NAN; rows.len() * (heads * head_dim) as usize]),
        ]
        .map(|(name, values)| put(exec, name, values));
        let mut plan = Plan::default();
        plan.add(op, &[b, p, conv, norm, memory, out]);
        let bufs = [b, p, conv, norm, memory, out];
        let [out, new] = <[_; 2]>::try_from(run(exec, plan, &batch, &[out, memory], &bufs)).expect("two results");
        *state = new;
        out
    }

    /// The same for one slot by separate steps: convolution and silu by plain loops over the whole history, then
    /// `delta_gates`, `delta_serial`, and the head norm by plain loops. Tokens are those after the first `skip`.
    fn path(&self, exec: &mut Exec, p: &[f32], skip: usize, state: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let Block { heads, head_dim, .. } = *self;
        let channels = self.channels();
        let in_stride = channels + heads as usize;
        let rows = p.len() / in_stride - skip;
        let mut qkv = vec![];
        for t in skip..skip + rows {
            for c in 0..channels {
                let taps = self.conv[4 * c..4 * c + 4].iter().enumerate();
                let inputs = taps.filter(|(j, _)| t + j >= 3);
                let y: f64 = inputs.map(|(j, &w)| f64::from(w) * f64::from(p[(t + j - 3) * in_stride + c])).sum();
                qkv.push((y / (1.0 + (-y).exp())) as f32);
            }
        }
        let mut layer = Layer { heads, head_dim, qkv, beta: vec![], state: state.to_vec() };
        let raw = put(exec, "p", &p[skip * in_stride..]);
        let buf = put(exec, "qkv", &layer.qkv);
        let beta = put(exec, "beta", &vec![f32::NAN; rows * heads as usize]);
        let mut plan = Plan::default();
        let op = DeltaGates { rows: rows as u32, heads, head_dim, in_stride: in_stride as u32 };
        plan.add(op, &[raw, buf, beta]);
        let mut batch = Batch::default();
        batch.push(0, skip as u32, &vec![0; rows], true);
        let results = run(exec, plan, &batch, &[buf, beta], &[raw, buf, beta]);
        (layer.qkv, layer.beta) = (results[0].clone(), results[1].clone());
        let mut out = layer.scan(exec, Form::Serial, &[(0, skip as u32, rows as u32)]);
        for o in out.chunks_mut(head_dim as usize) {
            let mean = o.iter().map(|&o| f64::from(o).powi(2)).sum::<f64>() / f64::from(head_dim);
            let scale = 1.0 / (mean + 1e-5).sqrt();
            o.iter_mut().zip(&self.norm).for_each(|(o, w)| *o = (f64::from(*o) * scale * f64::from(*w)) as f32);
        }
        (out, layer.state)
    }
}

#[test]
fn step_equals_separate_steps() {
    const TOKENS: usize = 9;
    const SKIP: usize = 6;
    everywhere(|device, exec| {
        for (heads, head_dim) in [(2, 64), (1, 128), (3, 20)] {
            let mut random = Random::new(u64::from(head_dim));
            let block = Block { heads, head_dim, conv: vec![], norm: vec![] };
            let mut normals = |len: usize| (0..len).map(|_| random.normal()).collect::<Vec<f32>>();
            let conv = normals(4 * block.channels());
            let block = Block { conv, norm: normals(head_dim as usize), ..block };
            let (channels, slot_len) = (block.channels(), block.slot_len());
            let in_stride = channels + heads as usize;
            // Slot 1 begins; slot 2 goes on after SKIP tokens, of which the ring holds the last four.
            let fresh = normals(TOKENS * in_stride);
            let later = normals((SKIP + TOKENS) * in_stride);
            let mut state = normals(3 * slot_len);
            for t in SKIP - 4..SKIP {
                let ring = &mut state[2 * slot_len + t % 4 * channels..][..channels];
                ring.copy_from_slice(&later[t * in_stride..][..channels]);
            }
            let start = state.clone();
            let before = state[2 * slot_len + 4 * channels..].to_vec();
            let steps = |exec: &mut Exec, state: &mut Vec<f32>, late: u32| {
                let mut outs = [vec![], vec![]];
                for t in 0..TOKENS {
                    let p = [&later[(SKIP + t) * in_stride..][..in_stride], &fresh[t * in_stride..][..in_stride]];
                    let rows = [(2, SKIP as u32 + late + t as u32), (1, t as u32)];
                    let out = block.step(exec, &rows, &p.concat(), state);
                    let (first, second) = out.split_at(channels / 3);
                    outs[0].extend(first);
                    outs[1].extend(second);
                }
                outs
            };
            let outs = steps(exec, &mut state, 0);
            let name = format!("step {heads} x {head_dim} on {device}");
            let (want, memory) = block.path(exec, &later, SKIP, &before);
            close(&format!("{name}: resumed out"), &want, &outs[0], TOLERANCE).unwrap();
            close(&format!("{name}: resumed S"), &memory, &state[2 * slot_len + 4 * channels..], TOLERANCE).unwrap();
            let (fresh_want, memory) = block.path(exec, &fresh, 0, &vec![9.0; before.len()]);
            close(&format!("{name}: fresh out"), &fresh_want, &outs[1], TOLERANCE).unwrap();
            let slot = &state[slot_len..2 * slot_len];
            close(&format!("{name}: fresh S"), &memory, &slot[4 * channels..], TOLERANCE).unwrap();
            for t in TOKENS - 4..TOKENS {
                let ring = &slot[t % 4 * channels..][..channels];
                assert_eq!(ring, &fresh[t * in_stride..][..channels], "{name}: ring");
            }
            assert_eq!(state[..slot_len], start[..slot_len], "{name}: slot 0 rests");
            // Negative control: one position late, the ring is read in the wrong order.
            let wrong = steps(exec, &mut start.clone(), 1);
            assert!(close("late", &want, &wrong[0], TOLERANCE).is_err());
        }
    });
}

/// The decode step inside a whole golden layer, token by token; projections by plain loops.
#[test]
fn step_matches_golden_layer() {
    let tensors = golden("deltanet_layer");
    let of = |name: &str| &tensors[name].1;
    let [rows, hidden] = tensors["x"].0[..] else { panic!("shape of x") };
    let heads = tensors["b_proj.weight"].0[0];
    let weights = |suffix: &str| ["q", "k", "v"].map(|name| of(&format!("{name}_{suffix}.weight")).clone()).concat();
    let project = |weights: &[f32], x: &[f32]| -> Vec<f32> {
        let dot = |row: &[f32]| row.iter().zip(x).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32;
        weights.chunks(x.len()).map(dot).collect()
    };
    let joint = [weights("proj"), of("b_proj.weight").clone()].concat();
    let block = Block {
        heads: heads as u32,
        head_dim: (hidden / heads) as u32,
        conv: weights("conv1d"),
        norm: of("o_norm.weight").clone(),
    };
    everywhere(|device, exec| {
        let layer = |exec: &mut Exec, block: &Block| {
            let mut state = vec![0.25; block.slot_len()];
            let mut y = vec![];
            for (x, t) in of("x").chunks(hidden).zip(0..rows as u32) {
                let o = block.step(exec, &[(0, t)], &project(&joint, x), &mut state);
                y.extend(project(of("o_proj.weight"), &o));
            }
            y
        };
        let name = format!("golden layer on {device}");
        close(&name, of("out"), &layer(exec, &block), TOLERANCE).unwrap();
        // Negative control: the taps of a convolution the other way round.
        let mut wrong = block.clone();
        wrong.conv[..4].reverse();
        assert!(close(&name, of("out"), &layer(exec, &wrong), TOLERANCE).is_err());
    });
}
