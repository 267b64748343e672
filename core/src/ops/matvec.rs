//! Matrix times a few rows (decode). There is one kernel for each way in which a product is used, and all share one
//! loop.
//!
//! The norm in front of a projection needs no dispatch of its own. Besides the product, `W·(x ⊙ w) / rms(x)` needs only
//! the sum of squares of x, and the product reads x in any case (spec 3.2, 3.4 step 6).

use crate::batch::Size;
use crate::buf::Elem::{F32, Weights};
use crate::caps::Caps;
use crate::format::{Format, Quant, Scales, bf16_pair};
use crate::kernel::{Bind, Const, Kernel, Source, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

/// The most rows that matrix-vector kernels can take. More rows go through [`Matmul`](super::Matmul).
pub const MATVEC_ROWS: u32 = 8;

/// The most rows for which matrix-vector kernels are used on this device. With cooperative matrices, a tile of 16 rows
/// takes less time than eight rows one after the other (benches/NOTES.md).
pub fn few_rows(caps: &Caps) -> u32 {
    if caps.coopmat { 4 } else { MATVEC_ROWS }
}

const W: Bind = read("w", Weights);
const X: Bind = read("x", F32);
const SCALE: Bind = read("scale", F32);

/// Computes an output from (the product of row i of the matrix with x, index of the output, operator, logit_scale, old
/// value of y).
type Combine<O> = fn(&dyn Fn(usize) -> f32, usize, &O, Option<&[f32]>, f32) -> f32;

const fn parts(norm: bool, kernel: &'static str) -> [Source; 7] {
    use Source::Text;
    let norm = if norm { wgsl::NORMED } else { wgsl::UNNORMED };
    [
        Source::Lines,
        Text(wgsl::GRID),
        Text(wgsl::MATVEC),
        Source::Weights,
        Text(wgsl::PRODUCT),
        Text(norm),
        Text(kernel),
    ]
}

macro_rules! matvec {
    ($(#[$doc:meta])* $op:ident, $name:literal, $text:ident, $binds:expr, $lines:literal, $combine:expr) => {
        numbers! {
            $(#[$doc])*
            pub struct $op {
                /// Columns of the matrix: a multiple of 8, and of the group size of its format.
                pub cols: u32,
                /// Outputs of the matrix, or of this shard of it.
                pub outs: u32,
                /// Column of `y` where the first output goes.
                pub first: u32,
                /// Length of a row of `y`.
                pub stride: u32,
                /// Added to the mean square. Unused if there is no norm.
                pub eps: f32,
                /// Rows of `w`.
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
                // Kernels with a norm bind its weight between x and y.
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
                    // Rows of one chunk. With a single output the sum may cancel to almost zero; several rows of x keep
                    // the comparison meaningful.
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
    /// `y = silu(G·h) ⊙ (U·h)` with `h = RMSNorm(x)`: the first half of an FFN (spec 3.6). `w` has `outs` rows of G,
    /// then `outs` rows of U.
    MatvecGate, "matvec_gate", MATVEC_GATE, &[W, X, SCALE, update("y", F32)], 2,
    |line, i, op, _, _| super::silu(line(i)) * line(i + op.outs as usize)
}

matvec! {
    /// `y = W·RMSNorm(x) ⊙ logit_scale`: logits. `logit_scale` is 1 / (length of each logit's row of the head) (spec
    /// 3.7).
    Logits, "logits", LOGITS, &[W, X, SCALE, read("logit_scale", F32), update("y", F32)], 1,
    |line, i, op, logit_scale, _| line(i) * logit_scale.map_or(1.0, |d| d[op.first as usize + i])
}

/// How a workgroup divides its work, see `lib/product.wgsl`.
struct Shape {
    /// Threads of a team, which share a row of the matrix.
    lanes: u32,
    teams: u32,
    /// Rows of the matrix that a team takes.
    outs: u32,
    /// Rows of the matrix that an output needs: 2 with a gate, else 1.
    per_output: u32,
    rows: u32,
    /// Rows of x that are in workgroup memory at a time.
    staged: u32,
    /// Chunks of each row of the matrix that a thread loads at a time.
    steps: u32,
    /// Whether x goes through workgroup memory.
    tiled: bool,
    norm: bool,
    format: Format,
}

impl Shape {
    /// The fastest shape for a matrix with this many outputs, each of which needs `per_output` rows of the matrix.
    fn new(cols: u32, [outputs, per_output]: [u32; 2], rows: u32, norm: bool, format: Format, caps: &Caps) -> Shape {
        let lines = outputs * per_output;
        // All numbers are measured (benches/NOTES.md). A matrix with few rows gets a whole workgroup for one or two
        // rows, so that a large device has enough workgroups. With many rows, a team takes several of them, so that x
        // is read less often. That counts for more if x has several rows; but without subgroups, the sums of several
        // rows of both would fill workgroup memory.
        let software = caps.software;
        let tiled = matches!(format, Format::Quant(_));
        let together = if caps.subgroup.is_some() { rows } else { 1 };
        let (lanes, teams, outs, steps) = match (tiled, lines, together) {
            _ if software => (8, 1, 4, 1),
            (false, 65_536.., 1) => (128, 2, 2, 1),
            (false, 8192.., 1) => (32, 4, 2, 2),
            (false, 2560.., 1) => (64, 2, 2, 2),
            (false, _, 1) => (128, 2, 1, 1),
            (false, 65_536.., 2) => (32, 4, 4, 1),
            (false, 5000.., 2) => (32, 4, 2, 2),
            (false, _, 2) => (128, 2, 2, 1),
            (false, 5000.., _) => (32, 4, 4, 1),
            (false, _, _) => (128, 2, 4, 1),
            (true, 65_536.., 1) => (32, 4, 4, 1),
            (true, 8192.., 1) => (32, 8, 2, 1),
            (true, 2560.., 1) => (32, 8, 1, 1),
            (true, _, 1) => (64, 4, 1, 1),
            (true, 65_536.., _) => (32, 8, 4, 1),
            (true, 5000.., _) => (32, 8, 2, 1),
            (true, _, _) => (64, 4, 2, 1),
        };
        let chunks = cols / format.chunk();
        let lanes = chunks.next_power_of_two().clamp(8, lanes).max(caps.subgroup.unwrap_or(1));
        let steps = steps.min(chunks.div_ceil(lanes));
        let teams = teams.min(caps.max_invocations / lanes);
        // All rows of an output must be in the same workgroup.
        let outs = outs.max(per_output);
        let mut shape = Shape { lanes, teams, outs, per_output, rows, staged: rows, steps, tiled, norm, format };
        // What does not fit into workgroup memory is divided into smaller portions. The bound is what every device has.
        // More would leave room for fewer workgroups at a time.
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

/// Row `i` of a matrix of `lines` rows, times one row of x.
fn product(format: Format, w: &[u32], lines: u32, i: usize, x: &[f32]) -> f32 {
    if format == Format::Bf16 {
        return dot_bf16(&w[i * x.len() / 2..][..x.len() / 2], x);
    }
    let mut line = vec![0.0; x.len()];
    format.line(w, lines, i, &mut line);
    dot(&line, x)
}

/// The dot product of bf16 weights with x. Most of the time of decode on the CPU is spent here. There are sixteen
/// partial sums, so that the compiler can use vector registers.
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

/// The dot product of f32 weights with x, with sixteen partial sums like [`dot_bf16`].
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
