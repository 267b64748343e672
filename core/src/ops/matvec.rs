//! Matrix times a few rows (decode): one kernel for each way a product is used, all sharing one loop.
//!
//! The norm in front of a projection is not a step of its own: `W·(x ⊙ w) / rms(x)` needs, besides the product, only
//! the sum of squares of x, which the product reads anyway (spec 3.2, 3.4 step 6).

use crate::batch::Size;
use crate::buf::Elem::{F32, Weights};
use crate::caps::Caps;
use crate::format::{Format, Quant, Scales, bf16_pair};
use crate::kernel::{Bind, Const, Kernel, Source, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

/// The most rows that a matvec plan serves; more go through [`Matmul`](super::Matmul).
pub const MATVEC_ROWS: u32 = 8;

/// Most rows for which matrix-vector kernels are used. With cooperative matrices, a tile of 16 rows takes less time
/// than two rows one after the other (benches/NOTES.md).
pub fn few_rows(caps: &Caps) -> u32 {
    if caps.coopmat { 1 } else { MATVEC_ROWS }
}

const W: Bind = read("w", Weights);
const X: Bind = read("x", F32);
const SCALE: Bind = read("scale", F32);

/// An output from (the product of a line, the output's number, the operator, the logit_scale, the old value).
type Combine<O> = fn(&dyn Fn(usize) -> f32, usize, &O, Option<&[f32]>, f32) -> f32;

const fn parts(norm: bool, kernel: &'static str) -> [Source; 7] {
    use Source::Text;
    let norm = if norm { wgsl::NORMED } else { wgsl::UNNORMED };
    [Source::Lines, Text(wgsl::GRID), Text(wgsl::MATVEC), Source::Weights, Text(wgsl::PRODUCT), Text(norm), Text(kernel)]
}

macro_rules! matvec {
    ($(#[$doc:meta])* $op:ident, $name:literal, $text:ident, $binds:expr, $lines:literal, $combine:expr) => {
        numbers! {
            $(#[$doc])*
            pub struct $op {
                /// Columns of the matrix; a multiple of 8, and of the format's group.
                pub cols: u32,
                /// Outputs of this (part of the) matrix.
                pub outs: u32,
                /// Where the first of them goes in a row of `y`.
                pub first: u32,
                /// Length of a row of `y`.
                pub stride: u32,
                /// Added to the mean square; unused where there is no norm.
                pub eps: f32,
                /// Lines of `w`.
                pub lines: u32,
            } host {
                /// Rows that the buffers hold, at most [`MATVEC_ROWS`].
                pub rows: u32,
                /// The format of `w`.
                pub format: Format,
            }
        }

        impl $op {
            fn shape(&self, caps: &Caps) -> Shape {
                let norm = self.kernel().binds.contains(&SCALE);
                Shape::new(self.cols, [self.outs, $lines], self.rows, norm, self.format, caps)
            }
        }

        impl Op for $op {
            fn kernel(&self) -> Kernel {
                const BINDS: &[Bind] = $binds;
                // Those with a norm bind its weight between w, x and y.
                const PARTS: &[Source] = &parts(BINDS.len() > 3, wgsl::$text);
                Kernel { name: $name, parts: PARTS, binds: BINDS }
            }

            fn consts(&self, caps: &Caps) -> Vec<Const> {
                self.shape(caps).consts()
            }

            fn lens(&self) -> Vec<u64> {
                let (rows, cols) = (u64::from(self.rows), u64::from(self.cols));
                let bind = |bind: &Bind| match bind.name {
                    "w" => self.format.words(self.lines, self.cols),
                    "x" => rows * cols,
                    "scale" => cols,
                    "logit_scale" => self.stride.into(),
                    _ => rows * u64::from(self.stride),
                };
                self.kernel().binds.iter().map(bind).collect()
            }

            fn grid(&self, _: Size, caps: &Caps) -> [u32; 3] {
                let shape = self.shape(caps);
                caps.grid(u64::from(self.outs.div_ceil(shape.teams * shape.outs / $lines)))
            }

            fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
                const COMBINE: Combine<$op> = $combine;
                let norm = self.kernel().binds.contains(&SCALE);
                let (bufs, y) = bufs.split_at_mut(bufs.len() - 1);
                let (w, x) = (&bufs[0], floats(&bufs[1]));
                let extra = bufs.get(3).map(|words| floats(words));
                let cols = self.cols as usize;
                let outs = self.outs as usize;
                for r in 0..size.rows as usize {
                    let row = &x[r * cols..][..cols];
                    let row = if norm { normed(row, floats(&bufs[2]), self.eps) } else { row.to_vec() };
                    let y = &mut floats_mut(&mut y[0])[r * self.stride as usize + self.first as usize..][..outs];
                    let line = |i: usize| product(self.format, w, self.lines, i, &row);
                    for (i, y) in y.iter_mut().enumerate() {
                        *y = COMBINE(&line, i, self, extra, *y);
                    }
                }
            }

            fn flops(&self, size: Size) -> Option<u64> {
                Some(2 * u64::from(size.rows) * u64::from(self.cols) * u64::from(self.outs * $lines))
            }

            fn examples() -> Vec<Example<Self>> {
                let case = |format: Format, rows, cols, outs, first, stride| {
                    let lines = $lines * outs;
                    Example::rows($op { rows, cols, outs, first, stride, eps: 1e-6, lines, format }, rows)
                };
                let quant = |bits, group, scales| Format::Quant(Quant { bits, group, scales });
                vec![
                    // A line of one chunk, and one output; its few rows keep a cancelled sum from being all there is.
                    case(Format::Bf16, 8, 8, 1, 0, 1),
                    case(Format::Bf16, 1, 2048, 27, 0, 27),
                    case(Format::Bf16, 1, 520, 65, 7, 80),
                    case(Format::Bf16, 3, 128, 63, 1, 64),
                    case(Format::Bf16, 8, 192, 130, 0, 130),
                    case(Format::Bf16, 2, 8, 270_000, 0, 270_000),
                    case(quant(4, 32, Scales::Bf16), 1, 32, 7, 0, 7),
                    case(quant(4, 64, Scales::Bf16), 1, 2048, 67, 3, 80),
                    case(quant(4, 128, Scales::F16), 3, 384, 63, 0, 63),
                    case(quant(8, 32, Scales::F16), 1, 96, 65, 1, 66),
                    case(quant(8, 64, Scales::Bf16), 8, 192, 130, 0, 130),
                    case(quant(8, 128, Scales::Bf16), 2, 1152, 9000, 0, 9000),
                    case(quant(4, 64, Scales::F32), 1, 320, 67, 1, 70),
                    case(quant(8, 16, Scales::Bf16), 3, 80, 65, 0, 65),
                    case(Format::F16, 1, 520, 65, 7, 80),
                    case(Format::F16, 8, 192, 130, 0, 130),
                    case(Format::F32, 1, 520, 65, 7, 80),
                    case(Format::F32, 3, 8, 9, 0, 9),
                ]
            }

            fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
                if bind == 0 { self.format.example(self.lines, self.cols, uniform) } else { None }
            }
        }
    };
}

matvec! {
    /// `y = W·RMSNorm(x)`: a projection into a mixer.
    MatvecNorm, "matvec_norm", MATVEC_NORM, &[W, X, SCALE, update("y", F32)], 1,
    |line, i, _, _, _| line(i)
}

matvec! {
    /// `y += W·x`: an output projection with its residual.
    MatvecAdd, "matvec_add", MATVEC_ADD, &[W, X, update("y", F32)], 1,
    |line, i, _, _, y| y + line(i)
}

matvec! {
    /// `y += W·RMSNorm(x)`: the output projection behind Mamba2's gated norm (spec 3.4 steps 6 and 7).
    MatvecNormAdd, "matvec_norm_add", MATVEC_NORM_ADD, &[W, X, SCALE, update("y", F32)], 1,
    |line, i, _, _, y| y + line(i)
}

matvec! {
    /// `y = relu(W·RMSNorm(x))²`: the first half of an ungated FFN.
    MatvecRelu2, "matvec_relu2", MATVEC_RELU2, &[W, X, SCALE, update("y", F32)], 1,
    |line, i, _, _, _| line(i).max(0.0).powi(2)
}

matvec! {
    /// `y = silu(G·h) ⊙ (U·h)` with `h = RMSNorm(x)`: the first half of an FFN (spec 3.6). `w` holds
    /// `outs` lines of G, then as many of U.
    MatvecGate, "matvec_gate", MATVEC_GATE, &[W, X, SCALE, update("y", F32)], 2,
    |line, i, op, _, _| super::silu(line(i)) * line(i + op.outs as usize)
}

matvec! {
    /// `y = W·RMSNorm(x) ⊙ logit_scale`: logits. `logit_scale` is 1 / the length of the vocabulary row of each logit (spec
    /// 3.7).
    Logits, "logits", LOGITS, &[W, X, SCALE, read("logit_scale", F32), update("y", F32)], 1,
    |line, i, op, logit_scale, _| line(i) * logit_scale.map_or(1.0, |d| d[op.first as usize + i])
}

/// How a kernel is cut: see `lib/product.wgsl`.
struct Shape {
    /// Threads along a line.
    lanes: u32,
    teams: u32,
    /// Lines of a team.
    outs: u32,
    /// Lines of an output.
    per_output: u32,
    rows: u32,
    /// Rows of x in workgroup memory at a time.
    staged: u32,
    /// Chunks of a line that a thread asks for at a time.
    steps: u32,
    /// x comes through workgroup memory.
    tiled: bool,
    norm: bool,
    format: Format,
}

impl Shape {
    /// For outputs that each take so many lines.
    fn new(cols: u32, [outputs, per_output]: [u32; 2], rows: u32, norm: bool, format: Format, caps: &Caps) -> Shape {
        let lines = outputs * per_output;
        // Measured (benches/NOTES.md). Few lines: a whole workgroup on each, so that a large device has enough of them;
        // many lines: several for each team, so that x is worth reading.
        let software = caps.software;
        let tiled = matches!(format, Format::Quant(_));
        let (lanes, teams, outs, steps) = match (tiled, lines) {
            _ if software => (8, 1, 4, 1),
            (false, 65_536..) => (128, 2, 2, 1),
            (false, 8192..) => (32, 4, 2, 2),
            (false, 2560..) => (64, 2, 2, 2),
            (false, _) => (128, 2, 1, 1),
            (true, 65_536..) => (32, 4, 4, 1),
            (true, 8192..) => (32, 8, 2, 1),
            (true, 2560..) => (32, 8, 1, 1),
            (true, _) => (64, 4, 1, 1),
        };
        let chunks = cols / format.chunk();
        let lanes = chunks.next_power_of_two().clamp(8, lanes).max(caps.subgroup.unwrap_or(1));
        let steps = steps.min(chunks.div_ceil(lanes));
        let teams = teams.min(caps.max_invocations / lanes);
        // An output's lines meet in one workgroup.
        let outs = outs.max(per_output);
        let mut shape = Shape { lanes, teams, outs, per_output, rows, staged: rows, steps, tiled, norm, format };
        // What does not fit into workgroup memory comes in smaller portions. More than the least that devices have would
        // leave room for fewer workgroups at a time.
        while shape.workgroup_bytes(caps) > Caps::FLOOR.workgroup_bytes {
            match shape {
                Shape { steps: 2.., .. } => shape.steps /= 2,
                Shape { staged: 2.., .. } => {
                    shape.staged = (1..shape.staged).rev().find(|staged| rows.is_multiple_of(*staged)).unwrap_or(1);
                }
                _ => shape.teams /= 2,
            }
        }
        shape
    }

    fn workgroup_bytes(&self, caps: &Caps) -> u32 {
        let tile = match self.tiled {
            true => self.staged * self.format.chunk() * (self.lanes * self.steps + 1) * 4,
            false => 0,
        };
        let places = self.lanes * self.teams / caps.subgroup.unwrap_or(1);
        tile + self.values() * places * 4
    }

    fn values(&self) -> u32 {
        self.rows * (self.outs + u32::from(self.norm))
    }

    fn consts(&self) -> Vec<Const> {
        let mut consts = vec![
            ("WG", self.lanes * self.teams),
            ("LANES", self.lanes),
            ("TEAMS", self.teams),
            ("OUTS", self.outs),
            ("PER_OUT", self.per_output),
            ("ROWS", self.rows),
            ("BATCHES", self.rows / self.staged),
            ("STAGED", self.staged),
            ("STEPS", self.steps),
            ("TILED", self.tiled.into()),
            ("DIRECT", (!self.tiled).into()),
            ("NORM", self.norm.into()),
            ("VALUES", self.values()),
        ];
        consts.extend(self.format.consts());
        consts
    }
}

/// RMSNorm of one row, as in [`RmsNorm`](super::RmsNorm).
pub(super) fn normed(x: &[f32], w: &[f32], eps: f32) -> Vec<f32> {
    let squares: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    let scale = 1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt();
    x.iter().zip(w).map(|(&x, &w)| (f64::from(x) * scale * f64::from(w)) as f32).collect()
}

/// Line `i` of a matrix of `lines` lines times one row.
fn product(format: Format, w: &[u32], lines: u32, i: usize, x: &[f32]) -> f32 {
    if format == Format::Bf16 {
        return dot_bf16(&w[i * x.len() / 2..][..x.len() / 2], x);
    }
    let mut line = vec![0.0; x.len()];
    format.line(w, lines, i, &mut line);
    dot(&line, x)
}

/// A sum of products with bf16, unpacked on the way: what most of decode on the CPU is. Sixteen sums side by side, so
/// that the compiler can use vector registers.
fn dot_bf16(line: &[u32], x: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    for (words, x) in line.chunks_exact(8).zip(x.chunks_exact(16)) {
        for i in 0..8 {
            let [low, high] = bf16_pair(words[i]);
            sums[i] += low * x[2 * i];
            sums[i + 8] += high * x[2 * i + 1];
        }
    }
    let done = line.len() / 8 * 8;
    let rest = line[done..].iter().zip(x[2 * done..].chunks_exact(2)).map(|(&word, x)| {
        let [low, high] = bf16_pair(word);
        low * x[0] + high * x[1]
    });
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// A sum of products, as [`dot_bf16`].
pub(super) fn dot(line: &[f32], x: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    for (w, x) in line.chunks_exact(16).zip(x.chunks_exact(16)) {
        for i in 0..16 {
            sums[i] += w[i] * x[i];
        }
    }
    let done = line.len() / 16 * 16;
    sums.iter().sum::<f32>() + line[done..].iter().zip(&x[done..]).map(|(w, x)| w * x).sum::<f32>()
}
