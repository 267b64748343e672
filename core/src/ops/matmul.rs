//! Matrix times many rows (prefill): exact f32 tiles in registers, or cooperative matrices (f16 products, f32 sums)
//! where the device has them.

use super::matvec::dot;
use crate::batch::Size;
use crate::buf::Elem::{F32, Weights};
use crate::caps::Caps;
use crate::format::{Format, Quant};
use crate::kernel::{Bind, Const, Kernel, Part, read, update};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

const W: Bind = read("w", Weights);
const X: Bind = read("x", F32);

macro_rules! matmul {
    ($(#[$doc:meta])* $op:ident, $name:literal, $text:ident, $binds:expr, $combine:expr) => {
        numbers! {
            $(#[$doc])*
            pub struct $op {
                /// Rows that the buffers hold.
                pub rows: u32,
                /// Columns of the matrix; a multiple of 8, and of the format's group.
                pub cols: u32,
                /// First line of the matrix to use.
                pub line: u32,
                /// Lines used: the outputs.
                pub outs: u32,
                /// Where the first output goes in a row of `y`.
                pub first: u32,
                /// Length of a row of `y`.
                pub stride: u32,
                /// Lines of `w`.
                pub lines: u32,
                /// The [`Format`] of `w`, as its code.
                pub format: u32,
            }
        }

        impl Op for $op {
            fn kernel(&self) -> Kernel {
                const PARTS: &[Part] = &[Part::Weights, Part::Text(wgsl::OPERANDS), Part::Tiles, Part::Text(wgsl::$text)];
                const BINDS: &[Bind] = $binds;
                Kernel { name: $name, parts: PARTS, binds: BINDS }
            }

            fn consts(&self, caps: &Caps) -> Vec<Const> {
                let mut consts = Shape::new(self.rows, self.outs, caps).consts();
                consts.extend(Format::of(self.format).consts());
                consts
            }

            fn lens(&self) -> Vec<u64> {
                let (rows, cols) = (u64::from(self.rows), u64::from(self.cols));
                let bind = |bind: &Bind| match bind.name {
                    "w" => Format::of(self.format).words(self.lines, self.cols),
                    "x" => rows * cols,
                    "divisor" => self.stride.into(),
                    _ => rows * u64::from(self.stride),
                };
                self.kernel().binds.iter().map(bind).collect()
            }

            fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
                // Rows first: workgroups that read the same weights run at the same time.
                let [rows, outs] = Shape::new(self.rows, self.outs, caps).tile();
                [size.rows.div_ceil(rows), self.outs.div_ceil(outs), 1]
            }

            fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
                // From (the old value, the product, the divisor).
                const COMBINE: fn(f32, f32, Option<f32>) -> f32 = $combine;
                let (bufs, y) = bufs.split_at_mut(bufs.len() - 1);
                let (w, x) = (&bufs[0], floats(&bufs[1]));
                let divisor = bufs.get(2).map(|words| floats(words));
                let (cols, stride, first) = (self.cols as usize, self.stride as usize, self.first as usize);
                let y = floats_mut(&mut y[0]);
                // Line by line, so that each is read once for all rows.
                let mut line = vec![0.0; cols];
                for i in 0..self.outs as usize {
                    Format::of(self.format).line(w, self.lines, self.line as usize + i, &mut line);
                    for r in 0..size.rows as usize {
                        let y = &mut y[r * stride + first + i];
                        *y = COMBINE(*y, dot(&line, &x[r * cols..][..cols]), divisor.map(|d| d[first + i]));
                    }
                }
            }

            fn flops(&self, size: Size) -> Option<u64> {
                Some(2 * u64::from(size.rows) * u64::from(self.cols) * u64::from(self.outs))
            }

            fn examples() -> Vec<Example<Self>> {
                let case = |format: Format, rows, cols, line, outs, first, stride| {
                    // Some lines before and after those that are used.
                    let (lines, format) = (line + outs + 2 * line, format.code());
                    Example::rows($op { rows, cols, line, outs, first, stride, lines, format }, rows)
                };
                let quant = |bits, group, scale_f16| Format::Quant(Quant { bits, group, scale_f16 });
                let all = vec![
                    case(Format::Bf16, 1, 8, 0, 33, 0, 33),
                    case(Format::Bf16, 9, 192, 0, 65, 0, 65),
                    case(Format::Bf16, 63, 40, 3, 64, 5, 70),
                    case(Format::Bf16, 65, 136, 0, 63, 0, 63),
                    case(Format::Bf16, 130, 256, 0, 130, 0, 131),
                    case(Format::Bf16, 2, 8, 0, 70_000, 0, 70_000),
                    // Enough of both for the largest tiles.
                    case(Format::Bf16, 129, 72, 0, 16_400, 0, 16_400),
                    case(Format::Bf16, 130, 520, 1, 8200, 2, 8210),
                    case(quant(4, 32, true), 9, 96, 1, 65, 0, 65),
                    case(quant(4, 64, false), 65, 192, 3, 130, 5, 140),
                    case(quant(4, 128, false), 130, 256, 0, 63, 0, 63),
                    case(quant(8, 32, false), 63, 160, 2, 64, 0, 64),
                    case(quant(8, 64, false), 2, 64, 0, 70_000, 0, 70_000),
                    case(quant(4, 64, true), 129, 64, 0, 16_400, 0, 16_400),
                    case(quant(8, 128, true), 33, 384, 5, 65, 1, 67),
                ];
                // The tiles are the same for all; only what is done with their sums differs.
                all.into_iter().step_by(if $name == "matmul" { 1 } else { 3 }).collect()
            }

            fn input(&self, bind: usize, uniform: &mut dyn FnMut() -> f32) -> Option<Vec<u32>> {
                if bind == 0 { Format::of(self.format).example(self.lines, self.cols, uniform) } else { None }
            }
        }
    };
}

matmul! {
    /// `y = W·x`.
    Matmul, "matmul", MATMUL_STORE, &[W, X, update("y", F32)],
    |_, product, _| product
}

matmul! {
    /// `y += W·x`: an output projection with its residual.
    MatmulAdd, "matmul_add", MATMUL_ADD, &[W, X, update("y", F32)],
    |y, product, _| y + product
}

matmul! {
    /// `y = W·x ⊙ divisor`: logits, each divided by the length of its vocabulary row (spec 3.7).
    MatmulLogits, "matmul_logits", MATMUL_LOGITS, &[W, X, read("divisor", F32), update("y", F32)],
    |_, product, divisor| product * divisor.unwrap_or(1.0)
}

/// How a kernel is cut: see `lib/matmul.wgsl` and `lib/matmul_coop.wgsl`. All that is to be tuned stands here.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// By cooperative matrices.
    coop: bool,
    /// Rows of a thread; or of a subgroup, in matrices of 16.
    rows: u32,
    /// Outputs of a thread, in fours; or of a subgroup, in matrices of 16.
    outs: u32,
    /// Threads, or subgroups, one below the other.
    tall: u32,
    /// Side by side.
    wide: u32,
    /// Subgroups that share the columns.
    deep: u32,
    /// Columns in workgroup memory at a time.
    step: u32,
    /// Column quads whose products are written out.
    unroll: u32,
}

impl Shape {
    /// Cooperative matrices, 128 × 256, where that still makes workgroups enough for a large GPU ([`Shape::BUSY`]).
    const COOP_WIDE: Shape = Shape::coop([4, 4], [2, 4], 32);
    const BUSY: u32 = 96;
    /// 64 × 64, with longer steps where there are few of them.
    const COOP: Shape = Shape::coop([2, 2], [2, 2], 32);
    const COOP_LONG: Shape = Shape::coop([2, 2], [2, 2], 64);
    const LONG: u32 = 256;
    /// For up to 16, 32 and 64 rows. A tile is few outputs, so that there are workgroups enough, and the columns are shared
    /// out: for matrices of up to 2,048 outputs, of up to 4,096, of up to 65,536, and of more.
    const COOP_FEW: [[Shape; 4]; 3] = [
        [
            Shape::deep([1, 1], 1, 8, 512),
            Shape::deep([1, 1], 1, 8, 512),
            Shape::deep([1, 1], 1, 8, 512),
            Shape::deep([1, 2], 2, 4, 128),
        ],
        [
            Shape::deep([2, 1], 1, 8, 256),
            Shape::deep([2, 1], 1, 8, 256),
            Shape::deep([2, 2], 1, 8, 256),
            Shape::deep([2, 2], 2, 4, 128),
        ],
        [
            Shape::deep([4, 1], 1, 8, 128),
            Shape::deep([4, 2], 1, 8, 128),
            Shape::deep([4, 4], 1, 8, 128),
            Shape::deep([4, 4], 2, 4, 64),
        ],
    ];
    /// Registers: 128 × 64, with longer steps where workgroup memory holds them.
    const MANY: Shape = Shape { coop: false, rows: 8, outs: 1, tall: 16, wide: 16, deep: 1, step: 16, unroll: 4 };
    const MANY_LONG: Shape = Shape { step: 32, ..Shape::MANY };
    /// For up to 64 rows: 32 × 64.
    const FEW: Shape = Shape { coop: false, rows: 4, outs: 1, tall: 8, wide: 16, deep: 1, step: 32, unroll: 4 };
    /// For a CPU's vectors, where a thread is a lane and a long text compiles for seconds: 64 × 64, and 32 × 64.
    const SOFTWARE: [Shape; 2] =
        [Shape { rows: 4, unroll: 1, ..Shape::MANY }, Shape { step: 8, unroll: 1, ..Shape::FEW }];

    const fn coop([rows, outs]: [u32; 2], [tall, wide]: [u32; 2], step: u32) -> Shape {
        Shape { coop: true, rows, outs, tall, wide, deep: 1, step, unroll: 0 }
    }

    const fn deep(matrices: [u32; 2], wide: u32, deep: u32, step: u32) -> Shape {
        Shape { deep, ..Shape::coop(matrices, [1, wide], step) }
    }

    /// Of [`Shape::COOP_FEW`], with shorter steps where workgroup memory does not hold them.
    fn coop_few(rows: u32, outs: u32, caps: &Caps) -> Shape {
        let sizes = Shape::COOP_FEW[[16, 32].iter().filter(|&&most| rows > most).count()];
        let mut shape = sizes[[2048, 4096, 65_536].iter().filter(|&&most| outs > most).count()];
        while shape.workgroup_bytes() > caps.workgroup_bytes && shape.step > 16 {
            shape.step /= 2;
            shape.deep = shape.deep.min(shape.step / 16);
        }
        shape
    }

    /// For buffers of so many rows and a matrix of so many outputs. Measured (benches/NOTES.md).
    fn new(rows: u32, outs: u32, caps: &Caps) -> Shape {
        let few = rows <= 64;
        match (caps.coopmat, caps.software) {
            (true, _) if few => Shape::coop_few(rows, outs, caps),
            (true, _) if Shape::COOP.workgroups(rows, outs) <= Shape::LONG => Shape::COOP_LONG,
            (true, _) if Shape::COOP_WIDE.suits(rows, outs, caps) => Shape::COOP_WIDE,
            (true, _) => Shape::COOP,
            (_, true) => Shape::SOFTWARE[usize::from(few)],
            (_, false) if few => Shape::FEW,
            (_, false) if caps.workgroup_bytes >= Shape::MANY_LONG.workgroup_bytes() => Shape::MANY_LONG,
            (_, false) => Shape::MANY,
        }
    }

    /// Rows and outputs of a workgroup.
    fn tile(&self) -> [u32; 2] {
        let [high, broad] = if self.coop { [16, 16] } else { [1, 4] };
        [high * self.rows * self.tall, broad * self.outs * self.wide]
    }

    fn suits(&self, rows: u32, outs: u32, caps: &Caps) -> bool {
        self.workgroups(rows, outs) >= Shape::BUSY && self.workgroup_bytes() <= caps.workgroup_bytes
    }

    /// Both tiles, with what keeps their rows in different banks, and a matrix of results for each subgroup.
    fn workgroup_bytes(&self) -> u32 {
        let lines: u32 = self.tile().into_iter().sum();
        match self.coop {
            true => lines * (self.step + 8) * 2 + self.tall * self.wide * self.deep * 1024,
            false => lines * (self.step + 4) * 4,
        }
    }

    fn workgroups(&self, rows: u32, outs: u32) -> u32 {
        let [high, broad] = self.tile();
        rows.div_ceil(high) * outs.div_ceil(broad)
    }

    fn consts(&self) -> Vec<Const> {
        let Shape { coop, rows, outs, tall, wide, deep, step, unroll } = *self;
        let [tile_rows, tile_outs] = self.tile();
        let threads = tall * wide * deep * if coop { 32 } else { 1 };
        let mut consts = vec![
            ("WG", threads),
            ("TILE_ROWS", tile_rows),
            ("TILE_OUTS", tile_outs),
            ("ROWS", rows),
            ("TALL", tall),
            ("WIDE", wide),
            ("STEP", step),
            ("LOADS_X", (tile_rows * step / 4).div_ceil(threads)),
            ("LOADS_W", (tile_outs * step / 8).div_ceil(threads)),
        ];
        match coop {
            true => consts.extend([("OUTS", outs), ("DEEP", deep), ("SLICES", step / 16 / deep)]),
            false => consts.extend([("QUADS", outs), ("UNROLL", unroll)]),
        }
        consts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Random, rms_ratio};
    use half::f16;

    /// `lib/matmul_coop.wgsl` with its indices, thread by thread. No device with cooperative matrices is needed.
    fn emulate(op: &Matmul, shape: Shape, line: &dyn Fn(u32) -> Vec<f32>, x: &[f32], y: &mut [f32]) {
        let half = |v: f32| f16::from_f32(v.clamp(-65504.0, 65504.0)).to_f32();
        let consts = shape.consts();
        let get = |name: &str| consts.iter().find(|(other, _)| *other == name).expect("a constant").1;
        let (wg, step, rows, outs) = (get("WG"), get("STEP"), get("ROWS"), get("OUTS"));
        let ([tile_rows, tile_outs], wide) = (shape.tile(), get("WIDE"));
        let (places, share) = (shape.tall * wide, 16 * get("SLICES"));
        let (quads, eights) = (step / 4, step / 8);
        let pitch = 4 * (quads + 2);
        let [groups_x, groups_y] = [op.rows.div_ceil(tile_rows), op.outs.div_ceil(tile_outs)];
        for (group_x, group_y) in (0..groups_y).flat_map(|y| (0..groups_x).map(move |x| (x, y))) {
            let (first_row, first_out) = (group_x * tile_rows, group_y * tile_outs);
            // Of each subgroup: [ROWS, OUTS, 16, 16].
            let mut sums = vec![0f32; (shape.deep * places * rows * outs * 256) as usize];
            let lines: Vec<_> = (0..tile_outs).map(|o| line(op.line + (first_out + o).min(op.outs - 1))).collect();
            for k in (0..op.cols).step_by(step as usize) {
                let mut tile_x = vec![f32::NAN; (tile_rows * pitch) as usize];
                let mut tile_w = vec![f32::NAN; (tile_outs * pitch) as usize];
                for (local, load) in (0..wg).flat_map(|t| (0..get("LOADS_X")).map(move |l| (t, l))) {
                    let at = local + load * wg;
                    let (row, col) = ((first_row + at / quads).min(op.rows - 1), k + at % quads * 4);
                    for i in 0..if at < tile_rows * quads { 4 } else { 0 } {
                        let value = if col < op.cols { x[(row * op.cols + col + i) as usize] } else { 0.0 };
                        let place = (at / quads * pitch + at % quads * 4 + i) as usize;
                        assert!(tile_x[place].is_nan(), "stored twice");
                        tile_x[place] = half(value / 16.0);
                    }
                }
                for (local, load) in (0..wg).flat_map(|t| (0..get("LOADS_W")).map(move |l| (t, l))) {
                    let at = local + load * wg;
                    let col = (k + at % eights * 8).min(op.cols - 8);
                    for i in 0..if at < tile_outs * eights { 8 } else { 0 } {
                        let place = (at / eights * pitch + at % eights * 8 + i) as usize;
                        assert!(tile_w[place].is_nan(), "stored twice");
                        tile_w[place] = half(lines[(at / eights) as usize][(col + i) as usize] * 16.0);
                    }
                }
                for (subgroup, i, o, e) in matrices(&shape) {
                    let row = subgroup % places / wide * (16 * rows) + 16 * i + e / 16;
                    let out = subgroup % wide * (16 * outs) + 16 * o + e % 16;
                    let sum = &mut sums[(((subgroup * rows + i) * outs + o) * 256 + e) as usize];
                    for c in subgroup / places * share..(subgroup / places + 1) * share {
                        *sum += tile_x[(row * pitch + c) as usize] * tile_w[(out * pitch + c) as usize];
                    }
                }
            }
            for (i, o, local) in (0..rows).flat_map(|i| (0..outs).flat_map(move |o| (0..wg).map(move |l| (i, o, l)))) {
                for at in (local..places * 256).step_by(wg as usize) {
                    let (place, e) = (at / 256, at % 256);
                    let row = first_row + 16 * i + place / wide * (16 * rows) + e / 16;
                    let out = first_out + 16 * o + place % wide * (16 * outs) + at % 16;
                    if row < op.rows && out < op.outs {
                        let of = |d: u32| sums[((((d * places + place) * rows + i) * outs + o) * 256 + e) as usize];
                        let place = &mut y[(row * op.stride + op.first + out) as usize];
                        assert!(place.is_nan(), "stored twice");
                        *place = (0..shape.deep).map(of).sum();
                    }
                }
            }
        }
    }

    /// Subgroup, its matrix (row, column of matrices), element of the matrix.
    fn matrices(shape: &Shape) -> impl Iterator<Item = (u32, u32, u32, u32)> + use<> {
        let Shape { rows, outs, tall, wide, deep, .. } = *shape;
        (0..tall * wide * deep).flat_map(move |s| {
            (0..rows).flat_map(move |i| (0..outs).flat_map(move |o| (0..256).map(move |e| (s, i, o, e))))
        })
    }

    #[test]
    fn tiles_fit_into_workgroup_memory() {
        for (workgroup_bytes, coopmat) in [(16 << 10, false), (32 << 10, false), (32 << 10, true), (48 << 10, true)] {
            let caps = Caps { workgroup_bytes, coopmat, ..Caps::FLOOR };
            for (rows, outs) in [1, 8, 16, 32, 64, 512].into_iter().flat_map(|r| [64, 2048, 3072, 6160, 131_072].map(|o| (r, o))) {
                let shape = Shape::new(rows, outs, &caps);
                assert!(shape.workgroup_bytes() <= workgroup_bytes, "{shape:?}");
                assert_eq!(shape.step % (16 * shape.deep), 0, "{shape:?}");
            }
        }
    }

    #[test]
    fn cooperative_matrices_add_up() {
        let mut shapes = vec![Shape::COOP_WIDE, Shape::COOP, Shape::COOP_LONG];
        // Every way to cut at once.
        shapes.push(Shape { rows: 1, deep: 2, ..Shape::COOP_LONG });
        shapes.extend(Shape::COOP_FEW.as_flattened());
        let mut worst = 0f64;
        for (example, seed) in Matmul::examples().into_iter().zip(0..) {
            let op = example.op;
            if op.outs > 1000 {
                continue;
            }
            let mut random = Random::new(seed);
            let mut bufs: Vec<_> = op.kernel().binds.iter().zip(op.lens()).map(|(b, len)| random.words(b.elem, len)).collect();
            if let Some(words) = op.input(0, &mut || random.uniform()) {
                bufs[0] = words;
            }
            bufs[2].fill(f32::NAN.to_bits());
            let x = floats(&bufs[1]).to_vec();
            let line = |i: u32| {
                let mut line = vec![0.0; op.cols as usize];
                Format::of(op.format).line(&bufs[0], op.lines, i as usize, &mut line);
                line
            };
            for &shape in &shapes {
                let mut y = vec![f32::NAN; bufs[2].len()];
                emulate(&op, shape, &line, &x, &mut y);
                let mut want = bufs.clone();
                Op::cpu(&op, example.batch.size(), &mut want);
                let want = floats(&want[2]);
                let written: Vec<usize> = (0..y.len()).filter(|&i| !want[i].is_nan()).collect();
                assert!((0..y.len()).all(|i| want[i].is_nan() == y[i].is_nan()), "{op:?} {shape:?}");
                let [want, got] = [want, &y].map(|all| written.iter().map(|&i| all[i]).collect::<Vec<_>>());
                worst = worst.max(rms_ratio(&format!("{op:?} {shape:?}"), &want, &got, 1e-3).expect("close"));
            }
        }
        println!("worst ratio {worst:.1e}");
    }
}
