//! Mamba2's scans against golden vectors, against each other, and on inputs that break careless ones; on the CPU
//! and on every device.
#![forbid(unsafe_code)]

use nemoflash::batch::Batch;
use nemoflash::op::Op;
use nemoflash::ops::{Conv1d, ConvTail, SsdCarry, SsdChunk, SsdLocal, SsdScores, SsdSerial, SsdStep};
use nemoflash::plan::Plan;
use nemoflash::{Buf, Elem, Exec};
use nemoflash_tests::{Random, close, targets};
use safetensors::SafeTensors;

/// Measured: 2.7e-7 against float64, 1.5e-6 between the forms (after 1024 rows), 1.4e-6 with outliers.
const CLOSE: f64 = 5e-6;

/// With cooperative matrices, whose factors are rounded to f16. Measured on an NVIDIA H200: 3.3e-4.
const HALF: f64 = 1e-3;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Serial,
    Chunked,
    /// Chunked, with cooperative matrices.
    Matrices,
}
use Form::{Chunked, Matrices, Serial};

impl Form {
    /// The forms that a device can run.
    fn all(exec: &Exec) -> Vec<Form> {
        let matrices = exec.caps().coop(48 << 10).then_some(Matrices);
        [Serial, Chunked].into_iter().chain(matrices).collect()
    }

    fn tolerance(self) -> f64 {
        if self == Matrices { HALF } else { CLOSE }
    }
}

/// A segment: slot, first position, rows.
type Segment = (u32, u32, u32);

/// Dimensions of a block.
#[derive(Clone, Copy, Debug)]
struct Shape {
    heads: u32,
    head_dim: u32,
    d_state: u32,
    slots: u32,
}

impl Shape {
    fn d_inner(&self) -> u32 {
        self.heads * self.head_dim
    }
    fn channels(&self) -> u32 {
        self.d_inner() + 2 * self.d_state
    }
    fn in_stride(&self) -> u32 {
        self.d_inner() + self.channels() + self.heads
    }
    fn state_at(&self) -> u32 {
        4 * self.channels()
    }
    fn slot_len(&self) -> u32 {
        self.state_at() + self.d_inner() * self.d_state
    }
    /// Rows of p whose last columns are these steps' raw values, and zeros else.
    fn p(&self, raw: &[f32]) -> Vec<f32> {
        let before = (self.in_stride() - self.heads) as usize;
        raw.chunks(self.heads as usize).flat_map(|raw| [vec![0.0; before], raw.to_vec()].concat()).collect()
    }
}

/// Weights and memory of a block.
#[derive(Clone, Debug)]
struct Block {
    conv: Vec<f32>,
    bias: Vec<f32>,
    params: Vec<f32>,
    state: Vec<f32>,
}

fn normal(random: &mut Random, len: u32) -> Vec<f32> {
    (0..len).map(|_| random.normal()).collect()
}

impl Block {
    fn new(shape: Shape, random: &mut Random) -> Block {
        let a = (0..shape.heads).map(|_| -0.02 - 2.0 * random.uniform()).collect();
        let d = normal(random, shape.heads);
        let dt_bias = (0..shape.heads).map(|_| -3.0 * random.uniform()).collect();
        Block {
            conv: normal(random, 4 * shape.channels()),
            bias: normal(random, shape.channels()),
            params: [a, d, dt_bias].concat(),
            state: normal(random, shape.slots * shape.slot_len()),
        }
    }
}

/// Runs operators one after the other, in one submission, and reads one of their buffers.
struct Lab<'a> {
    exec: &'a mut Exec,
    bufs: Vec<Buf>,
    plan: Plan,
}

impl Lab<'_> {
    /// With the batch in a buffer.
    fn new<'a>(exec: &'a mut Exec, batch: &Batch) -> (Lab<'a>, Buf) {
        let mut lab = Lab { exec, bufs: vec![], plan: Plan::default() };
        let words = batch.words();
        let buf = lab.alloc("batch", words.len() as u64, Elem::U32);
        lab.exec.write(buf, 0, &words);
        (lab, buf)
    }
    fn alloc(&mut self, name: &str, len: u64, elem: Elem) -> Buf {
        let buf = pollster::block_on(self.exec.alloc(name, len, elem)).expect("memory");
        self.bufs.push(buf);
        buf
    }
    fn floats(&mut self, name: &str, values: &[f32]) -> Buf {
        let buf = self.alloc(name, values.len() as u64, Elem::F32);
        self.exec.write(buf, 0, bytemuck::cast_slice(values));
        buf
    }
    fn run(&mut self, batch: &Batch) {
        pollster::block_on(self.exec.prepare(&mut self.plan)).expect("pipelines");
        let ticket = self.exec.submit(&[(&self.plan, batch.size())], None).expect("submission");
        pollster::block_on(self.exec.collect(ticket)).expect("result");
    }
    fn read(&mut self, buf: Buf) -> Vec<f32> {
        let words = pollster::block_on(self.exec.read(buf)).expect("result");
        words.into_iter().map(f32::from_bits).collect()
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        self.bufs.iter().for_each(|buf| self.exec.free(*buf));
    }
}

fn batch(segments: &[Segment]) -> Batch {
    let mut batch = Batch::default();
    for &(slot, position, rows) in segments {
        batch.push(slot, position, &vec![0; rows as usize], false);
    }
    batch
}

/// One step of a scan: y before the gate. Updates the state of the block. Where `xbc` is not given, the
/// convolution makes it and keeps its tail.
fn scan(
    exec: &mut Exec,
    form: Form,
    shape: Shape,
    block: &mut Block,
    segments: &[Segment],
    xbc: Option<&[f32]>,
    p: &[f32],
) -> Vec<f32> {
    let Shape { heads, head_dim, d_state, slots } = shape;
    let [in_stride, slot_len, state_at] = [shape.in_stride(), shape.slot_len(), shape.state_at()];
    let [channels, d_inner] = [shape.channels(), shape.d_inner()];
    let batch = batch(segments);
    let rows = batch.size().rows;
    let (mut lab, at) = Lab::new(exec, &batch);
    let p = lab.floats("p", p);
    let params = lab.floats("params", &block.params);
    let state = lab.floats("state", &block.state);
    let y = lab.alloc("y", u64::from(rows * d_inner), Elem::F32);
    let xbc = match xbc {
        Some(values) => lab.floats("xbc", values),
        None => {
            let xbc = lab.alloc("xbc", u64::from(rows * channels), Elem::F32);
            let (conv, bias) = (lab.floats("conv", &block.conv), lab.floats("bias", &block.bias));
            let op = Conv1d { rows, channels, in_stride, in_offset: d_inner, slots, slot_len };
            lab.plan.add(op, &[at, p, conv, bias, state, xbc]);
            let op = ConvTail { rows, channels, in_stride, in_offset: d_inner, slots, slot_len };
            lab.plan.add(op, &[at, p, state]);
            xbc
        }
    };
    match form {
        Serial => {
            let op = SsdSerial { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at };
            lab.plan.add(op, &[at, xbc, p, params, state, y]);
        }
        Chunked => {
            let op = SsdScores { rows, d_inner, d_state, slots };
            let scores = lab.alloc("scores", op.lens()[2], Elem::F32);
            lab.plan.add(op, &[at, xbc, scores]);
            let op = SsdChunk { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at };
            lab.plan.add(op, &[at, xbc, p, params, scores, state, y]);
        }
        Matrices => {
            let op = SsdLocal { rows, d_inner, d_state, slots };
            let scores = lab.alloc("scores", op.lens()[2], Elem::F32);
            let bc = lab.alloc("bc", op.lens()[3], Elem::F16);
            lab.plan.add(op, &[at, xbc, scores, bc]);
            let op = SsdCarry { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at };
            lab.plan.add(op, &[at, xbc, p, params, scores, bc, state, y]);
        }
    }
    lab.run(&batch);
    block.state = lab.read(state);
    lab.read(y)
}

/// One row for every slot: gated y.
fn step(exec: &mut Exec, shape: Shape, block: &mut Block, positions: &[(u32, u32)], p: &[f32]) -> Vec<f32> {
    let Shape { heads, head_dim, d_state, slots } = shape;
    let (in_stride, slot_len, state_at) = (shape.in_stride(), shape.slot_len(), shape.state_at());
    let batch = batch(&positions.iter().map(|&(slot, position)| (slot, position, 1)).collect::<Vec<_>>());
    let rows = batch.size().rows;
    let (mut lab, at) = Lab::new(exec, &batch);
    let op = SsdStep { rows, heads, head_dim, d_state, in_stride, slots, slot_len, state_at };
    let (p, conv, bias) = (lab.floats("p", p), lab.floats("conv", &block.conv), lab.floats("bias", &block.bias));
    let (params, state) = (lab.floats("params", &block.params), lab.floats("state", &block.state));
    let out = lab.alloc("out", u64::from(rows * shape.d_inner()), Elem::F32);
    lab.plan.add(op, &[at, p, conv, bias, params, state, out]);
    lab.run(&batch);
    block.state = lab.read(state);
    lab.read(out)
}

/// The CPU, then every device in every mode.
fn every_exec(suite: &str, mut each: impl FnMut(&str, &mut Exec)) {
    each("CPU", &mut Exec::cpu());
    for target in targets(suite) {
        let mut device = target.lend().unwrap_or_else(|e| panic!("{target}: {e}"));
        each(&device.label, &mut device.exec);
        target.give_back(device.exec);
    }
}

/// Random rows of xbc as the convolution gives them, and of p.
fn rows(shape: Shape, rows: u32, random: &mut Random) -> (Vec<f32>, Vec<f32>) {
    let xbc = (0..rows * shape.channels()).map(|_| 1.5 * random.uniform() - 0.28).collect();
    (xbc, shape.p(&normal(random, rows * shape.heads)))
}

#[test]
fn golden() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/ops.safetensors");
    let bytes = std::fs::read(path).expect("golden file");
    let file = SafeTensors::deserialize(&bytes).expect("golden file");
    every_exec("ssd golden", |label, exec| {
        for (case, t) in [("ssd_t1_p64_n128", 1), ("ssd_t65_p32_n16", 65), ("ssd_t130_p64_n128", 130)] {
            let tensor = |name: &str| file.tensor(&format!("{case}.{name}")).expect("golden tensor");
            let get = |name: &str| bytemuck::pod_collect_to_vec::<u8, f32>(tensor(name).data());
            let [heads, head_dim, d_state] = *tensor("state_in").shape() else { panic!("{case}: shape") };
            let [heads, head_dim, d_state] = [heads, head_dim, d_state].map(|n| n as u32);
            let shape = Shape { heads, head_dim, d_state, slots: 3 };
            // The golden step is behind softplus.
            let raw: Vec<f32> = get("dt").iter().map(|&dt| f64::from(dt).exp_m1().ln() as f32).collect();
            let row = |name: &str, t: usize, len: u32| get(name)[t * len as usize..][..len as usize].to_vec();
            let xbc: Vec<f32> = (0..t)
                .flat_map(|t| [row("x", t, shape.d_inner()), row("B", t, d_state), row("C", t, d_state)].concat())
                .collect();
            let mut before = Block::new(shape, &mut Random::new(1));
            before.params = [get("A"), get("D"), vec![0.0; heads as usize]].concat();
            let slot = shape.slot_len() as usize;
            let place = slot + shape.state_at() as usize..2 * slot;
            before.state[place.clone()].copy_from_slice(&get("state_in"));
            for form in Form::all(exec) {
                let mut run = |position| {
                    let mut block = before.clone();
                    let y = scan(exec, form, shape, &mut block, &[(1, position, t as u32)], Some(&xbc), &shape.p(&raw));
                    (y, block.state)
                };
                let (y, state) = run(9);
                let name = format!("{case} {form:?} on {label}");
                let tolerance = form.tolerance();
                close(&format!("{name}: y"), &get("out"), &y, tolerance).unwrap();
                close(&format!("{name}: state"), &get("state_out"), &state[place.clone()], tolerance).unwrap();
                // Slots that have no rows, and the tail, stay as they are.
                assert_eq!(state[..place.start], before.state[..place.start], "{name}");
                assert_eq!(state[place.end..], before.state[place.end..], "{name}");
                // Negative control: the same from position 0, where the incoming state does not count.
                assert!(close("from zero", &get("out"), &run(0).0, HALF).is_err(), "{name}");
            }
        }
    });
}

/// From a state that is not zero; more than 512 rows are several steps.
#[test]
fn chunked_equals_serial() {
    let shape = Shape { heads: 2, head_dim: 20, d_state: 32, slots: 1 };
    every_exec("ssd chunked", |label, exec| {
        let forms = Form::all(exec);
        for length in [1u32, 2, 63, 64, 65, 127, 1024, 8192] {
            let mut random = Random::new(length.into());
            let block = Block::new(shape, &mut random);
            let (xbc, p) = rows(shape, length, &mut random);
            let mut run = |form, first: u32| {
                let mut block = block.clone();
                let mut y = vec![];
                for at in (0..length).step_by(512) {
                    let now = 512.min(length - at);
                    let of = |values: &[f32], width: u32| {
                        values[(at * width) as usize..((at + now) * width) as usize].to_vec()
                    };
                    let (xbc, p) = (of(&xbc, shape.channels()), of(&p, shape.in_stride()));
                    y.extend(scan(exec, form, shape, &mut block, &[(0, first + at, now)], Some(&xbc), &p));
                }
                (y, block.state)
            };
            let serial = run(Serial, 3);
            for form in forms.iter().copied().filter(|form| *form != Serial) {
                let (chunked, tolerance) = (run(form, 3), form.tolerance());
                let name = format!("{form:?}, {length} rows on {label}");
                close(&format!("{name}: y"), &serial.0, &chunked.0, tolerance).unwrap();
                close(&format!("{name}: state"), &serial.1, &chunked.1, tolerance).unwrap();
                // Negative control: without the incoming state, which many rows forget.
                let few = serial.0.len().min(127 * shape.d_inner() as usize);
                assert!(close("from zero", &serial.0[..few], &run(form, 0).0[..few], tolerance).is_err(), "{name}");
            }
        }
    });
}

/// Rows of several slots in one step give the same bits as each slot alone.
#[test]
fn slots_do_not_meet() {
    let shape = Shape { heads: 2, head_dim: 16, d_state: 16, slots: 4 };
    let segments: [Segment; 3] = [(2, 7, 70), (0, 0, 1), (3, 64, 65)];
    let mut random = Random::new(3);
    let block = Block::new(shape, &mut random);
    let p = normal(&mut random, 136 * shape.in_stride());
    every_exec("ssd slots", |label, exec| {
        for form in Form::all(exec) {
            let mut together = block.clone();
            let y = scan(exec, form, shape, &mut together, &segments, None, &p);
            let mut one_by_one = block.clone();
            let mut alone = vec![];
            let mut first = 0;
            for segment in segments {
                let end = first + (segment.2 * shape.in_stride()) as usize;
                alone.extend(scan(exec, form, shape, &mut one_by_one, &[segment], None, &p[first..end]));
                first = end;
            }
            assert!(y == alone && together.state == one_by_one.state, "{form:?} on {label}");
            // Negative control: in another slot.
            let mut other = block.clone();
            let y = scan(exec, form, shape, &mut other, &[(1, 7, 70), (0, 0, 1), (3, 64, 65)], None, &p);
            assert!(y != alone && other.state != one_by_one.state, "{form:?} on {label}");
        }
    });
}

/// Rows one by one through the fused step, and at once through convolution, tail and scan: the same results,
/// states and rings.
#[test]
fn steps_equal_scan() {
    const ROWS: u32 = 9;
    let shape = Shape { heads: 3, head_dim: 40, d_state: 24, slots: 3 };
    let segments: [Segment; 3] = [(1, 0, ROWS), (2, 6, ROWS), (0, 257, ROWS)];
    let mut random = Random::new(4);
    let block = Block::new(shape, &mut random);
    let p = normal(&mut random, 3 * ROWS * shape.in_stride());
    let row =
        |segment: u32, t: u32| &p[((segment * ROWS + t) * shape.in_stride()) as usize..][..shape.in_stride() as usize];
    let width = shape.d_inner() as usize;
    every_exec("ssd step", |label, exec| {
        for form in Form::all(exec) {
            let mut scanned = block.clone();
            let mut want = scan(exec, form, shape, &mut scanned, &segments, None, &p);
            for (y, p) in want.chunks_mut(width).zip(p.chunks(shape.in_stride() as usize)) {
                y.iter_mut().zip(p).for_each(|(y, &z)| *y *= z / (1.0 + (-z).exp()));
            }
            let mut run = |mut block: Block| {
                let mut got = vec![0.0; want.len()];
                for t in 0..ROWS {
                    let positions: Vec<_> = segments.iter().map(|s| (s.0, s.1 + t)).collect();
                    let p = (0..3).flat_map(|s| row(s, t).to_vec()).collect::<Vec<_>>();
                    let out = step(exec, shape, &mut block, &positions, &p);
                    for (s, out) in out.chunks(width).enumerate() {
                        got[(s * ROWS as usize + t as usize) * width..][..width].copy_from_slice(out);
                    }
                }
                (got, block.state)
            };
            let (got, state) = run(block.clone());
            let name = format!("{form:?} and steps on {label}");
            let tolerance = form.tolerance();
            close(&format!("{name}: y"), &want, &got, tolerance).unwrap();
            close(&format!("{name}: state"), &scanned.state, &state, tolerance).unwrap();
            let slot = shape.slot_len() as usize;
            for (a, b) in state.chunks(slot).zip(scanned.state.chunks(slot)) {
                assert_eq!(a[..shape.state_at() as usize], b[..shape.state_at() as usize], "{name}: ring");
            }
            // Negative control: one entry of one ring that a first row reads: position 254 at entry 2.
            let mut other = block.clone();
            let channels = shape.channels() as usize;
            other.state[2 * channels..3 * channels].iter_mut().for_each(|v| *v += 1.0);
            assert!(close("another tail", &want, &run(other).0, tolerance).is_err(), "{name}");
        }
    });
}

/// Inputs as in trained models with outliers: x of 1e5, steps so long that everything is forgotten, and next to
/// them rows of ordinary size, which must stay right.
#[test]
fn outliers() {
    let shape = Shape { heads: 2, head_dim: 16, d_state: 64, slots: 1 };
    let mut random = Random::new(5);
    let mut block = Block::new(shape, &mut random);
    block.params = vec![-16.0, -0.5, 1.0, 1.0, 0.0, 0.0];
    let (mut xbc, _) = rows(shape, 100, &mut random);
    let ordinary = normal(&mut random, 100 * shape.heads);
    let width = shape.channels() as usize;
    for row in (3..30).step_by(4) {
        xbc[row * width] = 6e4;
        xbc[row * width + 17] = -1e5;
    }
    // Then one that forgets all, and short steps, whose decays must be right after sums of 1e5.
    xbc[29 * width..][..shape.d_inner() as usize].fill(1e-3);
    let steps = |long: [f32; 2]| {
        let mut raw = ordinary.clone();
        (3..30).step_by(4).for_each(|row| raw[row * 2..][..2].copy_from_slice(&long));
        raw[58..60].fill(300.0);
        raw[60..200].iter_mut().for_each(|raw| *raw -= 6.0);
        raw
    };
    let run = |exec: &mut Exec, form, xbc: &[f32], raw: &[f32]| {
        let mut block = block.clone();
        let y = scan(exec, form, shape, &mut block, &[(0, 12, 100)], Some(xbc), &shape.p(raw));
        (y, block.state[shape.state_at() as usize..].to_vec())
    };
    let later = 30 * shape.d_inner() as usize;
    every_exec("ssd outliers", |label, exec| {
        for form in Form::all(exec) {
            // With cooperative matrices, x times its step may reach a million.
            let raw = steps(if form == Matrices { [7.0, 8.0] } else { [1000.0, 3e4] });
            let want = run(&mut Exec::cpu(), Serial, &xbc, &raw);
            let tolerance = form.tolerance();
            let (y, state) = run(exec, form, &xbc, &raw);
            let name = format!("outliers {form:?} on {label}");
            close(&format!("{name}: y"), &want.0, &y, tolerance).unwrap();
            close(&format!("{name}: later y"), &want.0[later..], &y[later..], tolerance).unwrap();
            close(&format!("{name}: state"), &want.1, &state, tolerance).unwrap();
            // Negative controls: a step that differs a little, a value that is not a number.
            let mut other = raw.clone();
            other[80] *= if form == Matrices { 0.5 } else { 1.001 };
            let got = run(exec, form, &xbc, &other).0;
            assert!(close("another step", &want.0[later..], &got[later..], tolerance).is_err(), "{name}");
            let mut other = xbc.clone();
            other[50 * width] = f32::NAN;
            let result = close("not a number", &want.0, &run(exec, form, &other, &raw).0, 1.0);
            assert!(result.is_err_and(|e| e.contains("not finite")), "{name}");
        }
    });
}
