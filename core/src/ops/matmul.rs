//! Matrix times many rows (prefill): f32 tiles in registers, or cooperative matrices (f16 products, f32 sums) where the
//! device has them.

use super::matvec::dot;
use super::tiles::Shape;
use super::{Half, half};
use crate::batch::Size;
use crate::buf::Elem::{F16, F32, Weights};
use crate::caps::Caps;
use crate::format::{Format, Quant, Scales};
use crate::kernel::{Bind, Const, Kernel, Source, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

const W: Bind = read("w", Weights);

macro_rules! matmul {
    ($(#[$doc:meta])* $op:ident, $name:literal, $text:ident, [$($more:expr),+], $combine:expr) => {
        numbers! {
            $(#[$doc])*
            pub struct $op {
                /// Rows that the buffers hold.
                pub rows: u32,
                /// Columns of the matrix: a multiple of 8, and of the group size of its format.
                pub cols: u32,
                /// First row of the matrix to use.
                pub line: u32,
                /// Number of rows of the matrix to use: the outputs.
                pub outs: u32,
                /// Column of `y` where the first output goes.
                pub first: u32,
                /// Length of a row of `y`.
                pub stride: u32,
                /// Rows of `w`.
                pub lines: u32,
            } host {
                /// The format of `w`.
                pub format: Format,
                /// Whether `x` is f16, divided by 16. Only cooperative matrices multiply that.
                pub half: bool,
            }
        }

        impl Op for $op {
            fn kernel(&self) -> Kernel {
                const TILES: Source = Source::Coop(wgsl::MATMUL, wgsl::MATMUL_COOP);
                const fn parts(operands: &'static str) -> [Source; 4] {
                    [Source::Weights, Source::Text(operands), TILES, Source::Text(wgsl::$text)]
                }
                const PARTS: &[Source] = &parts(wgsl::OPERANDS);
                const HALF_PARTS: &[Source] = &parts(wgsl::OPERANDS_F16);
                const BINDS: &[Bind] = &[W, read("x", F32), $($more),+];
                const HALF_BINDS: &[Bind] = &[W, read("x", F16), $($more),+];
                match self.half {
                    false => Kernel { name: $name, parts: PARTS, binds: BINDS },
                    true => Kernel { name: $name, parts: HALF_PARTS, binds: HALF_BINDS },
                }
            }

            fn coop_only(&self) -> bool {
                self.half
            }

            fn consts(&self, caps: &Caps) -> Vec<Const> {
                let shape = Shape::new(self.rows, self.outs, caps);
                let mut consts = shape.consts(self.cols);
                consts.extend([("X_F16", self.half.into()), ("X_F32", (!self.half).into())]);
                if shape.coop {
                    // Logits are not stored as they are.
                    let direct = u32::from(shape.deep == 1 && $name != "matmul_logits");
                    consts.extend([("DIRECT", direct), ("ADDED", direct * u32::from($name == "matmul_add"))]);
                }
                consts.extend(self.format.consts());
                consts
            }

            fn lens(&self) -> Vec<u64> {
                let (rows, cols) = (u64::from(self.rows), u64::from(self.cols));
                let bind = |bind: &Bind| match bind.name {
                    "w" => self.format.words(self.lines, self.cols),
                    "x" => rows * cols,
                    "logit_scale" => self.stride.into(),
                    _ => rows * u64::from(self.stride),
                };
                self.kernel().binds.iter().map(bind).collect()
            }

            fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
                // Rows of x are the first grid dimension: workgroups that read the same weights run at the same time.
                let [rows, outs] = Shape::new(self.rows, self.outs, caps).tile();
                [size.rows.div_ceil(rows), self.outs.div_ceil(outs), 1]
            }

            fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
                // (old value, product, logit_scale) to the new value.
                const COMBINE: fn(f32, f32, Option<f32>) -> f32 = $combine;
                let (bufs, y) = bufs.split_at_mut(bufs.len() - 1);
                let w = &bufs[0];
                let x = rows(&bufs[1], self.half);
                let logit_scale = bufs.get(2).map(|words| floats(words));
                let (cols, stride, first) = (self.cols as usize, self.stride as usize, self.first as usize);
                let y = floats_mut(&mut y[0]);
                // Each row of the matrix is unpacked once for all rows of x.
                let mut line = vec![0.0; cols];
                for i in 0..self.outs as usize {
                    self.format.line(w, self.lines, self.line as usize + i, &mut line);
                    for r in 0..size.rows as usize {
                        let y = &mut y[r * stride + first + i];
                        *y = COMBINE(*y, dot(&line, &x[r * cols..][..cols]), logit_scale.map(|d| d[first + i]));
                    }
                }
            }

            fn flops(&self, size: Size) -> Option<u64> {
                Some(2 * u64::from(size.rows) * u64::from(self.cols) * u64::from(self.outs))
            }

            fn examples() -> Vec<Example<Self>> {
                let case = |format: Format, rows, cols, line, outs, first, stride| {
                    // Some rows of the matrix before and after those that are used.
                    let lines = line + outs + 2 * line;
                    Example::rows($op { rows, cols, line, outs, first, stride, lines, format, half: false }, rows)
                };
                let half = |mut example: Example<Self>| {
                    example.op.half = true;
                    example
                };
                let quant = |bits, group, scales| Format::Quant(Quant { bits, group, scales });
                let all = vec![
                    case(Format::Bf16, 1, 8, 0, 33, 0, 33),
                    case(Format::Bf16, 9, 192, 0, 65, 0, 65),
                    case(Format::Bf16, 63, 40, 3, 64, 5, 70),
                    case(Format::Bf16, 65, 136, 0, 63, 0, 63),
                    case(Format::Bf16, 130, 256, 0, 130, 0, 131),
                    case(Format::Bf16, 2, 8, 0, 70_000, 0, 70_000),
                    // Enough rows and outputs for the largest tiles.
                    case(Format::Bf16, 129, 72, 0, 16_400, 0, 16_400),
                    case(Format::Bf16, 130, 520, 1, 8200, 2, 8210),
                    case(quant(4, 32, Scales::F16), 9, 96, 1, 65, 0, 65),
                    case(quant(4, 64, Scales::Bf16), 65, 192, 3, 130, 5, 140),
                    case(quant(4, 128, Scales::Bf16), 130, 256, 0, 63, 0, 63),
                    case(quant(8, 32, Scales::Bf16), 63, 160, 2, 64, 0, 64),
                    case(quant(8, 64, Scales::Bf16), 2, 64, 0, 70_000, 0, 70_000),
                    case(quant(4, 64, Scales::F16), 129, 64, 0, 16_400, 0, 16_400),
                    case(quant(8, 128, Scales::F16), 33, 384, 5, 65, 1, 67),
                    case(Format::F16, 65, 136, 3, 63, 0, 63),
                    case(quant(8, 16, Scales::F32), 33, 80, 0, 65, 0, 65),
                    case(quant(4, 32, Scales::F32), 9, 96, 1, 33, 0, 33),
                    case(Format::F32, 65, 136, 3, 63, 5, 70),
                    half(case(Format::Bf16, 130, 520, 1, 8200, 2, 8210)),
                    half(case(Format::Bf16, 65, 136, 0, 63, 0, 63)),
                    half(case(quant(4, 64, Scales::Bf16), 520, 192, 3, 1030, 5, 1040)),
                ];
                // All three operators share the tiles and differ only in what they do with the sums, so the others get
                // fewer examples.
                all.into_iter().step_by(if $name == "matmul" { 1 } else { 3 }).collect()
            }

            fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
                match bind {
                    0 => self.format.example(self.lines, self.cols, uniform),
                    1 if self.half => {
                        let value = |_| half((2.0 * uniform() - 1.0) / 16.0);
                        let halves: Vec<Half> = (0..self.rows * self.cols).map(value).collect();
                        Some(bytemuck::pod_collect_to_vec(&halves))
                    }
                    _ => None,
                }
            }
        }
    };
}

matmul! {
    /// `y = W·x`.
    Matmul, "matmul", MATMUL_STORE, [update("y", F32)],
    |_, product, _| product
}

matmul! {
    /// `y += W·x`: an output projection with its residual.
    MatmulAdd, "matmul_add", MATMUL_ADD, [update("y", F32)],
    |y, product, _| y + product
}

matmul! {
    /// `y = W·x ⊙ logit_scale`: logits. `logit_scale` is 1 / (length of each logit's row of the head) (spec 3.7).
    MatmulLogits, "matmul_logits", MATMUL_LOGITS, [read("logit_scale", F32), update("y", F32)],
    |_, product, logit_scale| product * logit_scale.unwrap_or(1.0)
}

/// Rows of f32, or of f16 divided by 16, as f32.
pub(super) fn rows(words: &[u32], half: bool) -> std::borrow::Cow<'_, [f32]> {
    match half {
        false => floats(words).into(),
        true => bytemuck::cast_slice::<u32, Half>(words).iter().map(|x| 16.0 * x.to_f32()).collect::<Vec<_>>().into(),
    }
}
