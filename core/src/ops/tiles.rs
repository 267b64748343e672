//! How matrix products with many rows are divided into workgroups: see `lib/matmul.wgsl` and `lib/matmul_coop.wgsl`.
//! All tuning parameters are here.

use crate::caps::Caps;
use crate::kernel::{COOP, Const};

/// The tile of rows × outputs that a workgroup computes, and how its threads share it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Whether it uses cooperative matrices.
    pub coop: bool,
    /// Rows of a thread. With cooperative matrices: rows of a subgroup, in matrices of 16.
    rows: u32,
    /// Outputs of a thread, in four-vectors. With cooperative matrices: outputs of a subgroup, in matrices of 16.
    outs: u32,
    /// Threads, or subgroups, along the rows of the tile.
    tall: u32,
    /// Threads, or subgroups, along the outputs of the tile.
    wide: u32,
    /// Subgroups that share the sum over the columns.
    pub deep: u32,
    /// Columns that are in workgroup memory at a time.
    step: u32,
    /// Number of column quads in one turn of the unrolled loop.
    unroll: u32,
}

impl Shape {
    /// Cooperative matrices for many rows: tiles of 128 × 256, of 64 × 64, and of 64 × 64 with longer steps.
    const WIDE: Shape = Shape::coop([4, 4], [2, 4, 1], 32);
    const SQUARE: Shape = Shape::coop([2, 2], [2, 2, 1], 32);
    const LONG: Shape = Shape::coop([2, 2], [2, 2, 1], 64);
    /// For fewer rows. Tiles have fewer outputs, so that there are enough workgroups, and subgroups share the columns.
    /// The names give rows and outputs.
    const R16_O16: Shape = Shape::coop([1, 1], [1, 1, 8], 512);
    const R16_O64: Shape = Shape::coop([1, 2], [1, 2, 4], 128);
    const R32_O16: Shape = Shape::coop([2, 1], [1, 1, 8], 256);
    const R32_O32: Shape = Shape::coop([2, 2], [1, 1, 8], 256);
    const R32_O64: Shape = Shape::coop([2, 2], [1, 2, 4], 128);
    const R64_O32: Shape = Shape::coop([4, 2], [1, 1, 8], 128);
    const R64_O64: Shape = Shape::coop([4, 4], [1, 1, 8], 128);
    const R64_O96: Shape = Shape::coop([4, 3], [1, 2, 4], 64);
    const R64_O128: Shape = Shape::coop([4, 4], [1, 2, 4], 64);
    const R128_O128: Shape = Shape::coop([4, 4], [2, 2, 2], 64);
    /// As [`Shape::WIDE`], for outputs that would leave processors of a large device without a tile of that.
    const R128_O192: Shape = Shape::coop([4, 3], [2, 4, 1], 32);
    /// The shape for a matrix product with cooperative matrices. There is a line for each range of rows (up to its
    /// first number), and a column for each range of outputs (up to the number in `COOP_OUTS`, and one for more). All
    /// are measured (benches/NOTES.md).
    const COOP_OUTS: [u32; 5] = [1024, 2048, 5120, 8192, 65_536];
    const COOP: [(u32, [Shape; 6]); 7] = [
        (16, [Shape::R16_O16, Shape::R16_O16, Shape::R16_O16, Shape::R16_O16, Shape::R16_O16, Shape::R16_O64]),
        (32, [Shape::R32_O16, Shape::R32_O16, Shape::R32_O16, Shape::R32_O32, Shape::R32_O32, Shape::R32_O64]),
        (64, [Shape::R32_O32, Shape::R32_O32, Shape::R64_O32, Shape::R64_O64, Shape::R64_O96, Shape::R64_O128]),
        (128, [Shape::R32_O64, Shape::R32_O64, Shape::R64_O64, Shape::LONG, Shape::R128_O128, Shape::WIDE]),
        (256, [Shape::R64_O64, Shape::R64_O64, Shape::R64_O64, Shape::R128_O128, Shape::WIDE, Shape::WIDE]),
        (512, [Shape::LONG, Shape::LONG, Shape::SQUARE, Shape::R128_O192, Shape::R128_O128, Shape::WIDE]),
        (u32::MAX, [Shape::LONG, Shape::WIDE, Shape::R128_O192, Shape::R128_O192, Shape::WIDE, Shape::WIDE]),
    ];
    /// Tiles in registers: 128 × 64, with longer steps if workgroup memory has room for them.
    const MANY: Shape = Shape { coop: false, rows: 8, outs: 1, tall: 16, wide: 16, deep: 1, step: 16, unroll: 4 };
    const MANY_LONG: Shape = Shape { step: 32, ..Shape::MANY };
    /// For up to 64 rows: 32 × 64.
    const FEW: Shape = Shape { coop: false, rows: 4, outs: 1, tall: 8, wide: 16, deep: 1, step: 32, unroll: 4 };
    /// For GPUs in software, where a thread is a lane of a CPU's vector and a long kernel compiles for seconds: 64 × 64
    /// for many rows, and 32 × 64 for few.
    const SOFTWARE: [Shape; 2] =
        [Shape { rows: 4, unroll: 1, ..Shape::MANY }, Shape { step: 8, unroll: 1, ..Shape::FEW }];

    const fn coop([rows, outs]: [u32; 2], [tall, wide, deep]: [u32; 3], step: u32) -> Shape {
        Shape { coop: true, rows, outs, tall, wide, deep, step, unroll: 0 }
    }

    /// The fastest shape for buffers of `rows` rows and a matrix of `outs` outputs.
    pub fn new(rows: u32, outs: u32, caps: &Caps) -> Shape {
        let few = rows <= 64;
        match (caps.coopmat, caps.software) {
            (true, _) => Shape::coop_for(rows, outs).within(caps.workgroup_bytes),
            (_, true) => Shape::SOFTWARE[usize::from(few)],
            (_, false) if few => Shape::FEW,
            (_, false) if caps.workgroup_bytes >= Shape::MANY_LONG.workgroup_bytes() => Shape::MANY_LONG,
            (_, false) => Shape::MANY,
        }
    }

    fn coop_for(rows: u32, outs: u32) -> Shape {
        let line = Shape::COOP.iter().filter(|(most, _)| rows > *most).count();
        Shape::COOP[line].1[Shape::COOP_OUTS.iter().filter(|&&most| outs > most).count()]
    }

    /// Shortens the steps until the tiles fit into workgroup memory.
    fn within(mut self, workgroup_bytes: u32) -> Shape {
        while self.workgroup_bytes() > workgroup_bytes && self.step > 16 {
            self.step /= 2;
            self.deep = self.deep.min(self.step / 16);
        }
        self
    }

    /// Rows and outputs of a workgroup's tile.
    pub fn tile(&self) -> [u32; 2] {
        let [high, broad] = if self.coop { [16, 16] } else { [1, 4] };
        [high * self.rows * self.tall, broad * self.outs * self.wide]
    }

    /// Bytes of both tiles, padded so that their rows are in different banks, and of a matrix of results for each
    /// subgroup.
    fn workgroup_bytes(&self) -> u32 {
        let lines: u32 = self.tile().into_iter().sum();
        match self.coop {
            true => lines * (self.step + 8) * 2 + self.tall * self.wide * self.deep * 1024,
            false => lines * (self.step + 4) * 4,
        }
    }

    /// Steps whose columns are loaded before they are needed. With two, tiles for up to 512 rows take 5 to 15 % less time, and
    /// the largest ones as long or 2 % less (benches/NOTES.md). The kernel takes so many steps in one turn of its loop, so a few
    /// steps must be a multiple of that.
    fn ahead(&self, cols: u32) -> u32 {
        let steps = cols.div_ceil(self.step);
        if steps.is_multiple_of(2) || steps > 8 { 2 } else { 1 }
    }

    /// The constants of the kernel, for a matrix of `cols` columns.
    pub fn consts(&self, cols: u32) -> Vec<Const> {
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
            true => consts.extend([
                COOP,
                ("OUTS", outs),
                ("DEEP", deep),
                ("SLICES", step / 16 / deep),
                ("AHEAD", self.ahead(cols)),
            ]),
            false => consts.extend([("QUADS", outs), ("UNROLL", unroll)]),
        }
        consts
    }
}

#[cfg(test)]
mod tests {
    use super::super::Matmul;
    use super::*;
    use crate::check::{Random, rms_ratio};
    use crate::op::{Op, floats};
    use half::f16;

    /// Computes what `lib/matmul_coop.wgsl` computes, with the same indices, thread by thread. It needs no device with
    /// cooperative matrices.
    fn emulate(op: &Matmul, shape: Shape, line: &dyn Fn(u32) -> Vec<f32>, x: &[f32], y: &mut [f32]) {
        let half = |v: f32| f16::from_f32(v.clamp(-65504.0, 65504.0)).to_f32();
        let consts = shape.consts(op.cols);
        let get = |name: &str| consts.iter().find(|(other, _)| *other == name).expect("a constant").1;
        let (wg, step, rows, outs) = (get("WG"), get("STEP"), get("ROWS"), get("OUTS"));
        let ([tile_rows, tile_outs], wide) = (shape.tile(), get("WIDE"));
        let (places, share) = (shape.tall * wide, 16 * get("SLICES"));
        let (quads, eights) = (step / 4, step / 8);
        let pitch = 4 * (quads + 2);
        let [groups_x, groups_y] = [op.rows.div_ceil(tile_rows), op.outs.div_ceil(tile_outs)];
        for (group_x, group_y) in (0..groups_y).flat_map(|y| (0..groups_x).map(move |x| (x, y))) {
            let (first_row, first_out) = (group_x * tile_rows, group_y * tile_outs);
            // The sums of each subgroup, [ROWS, OUTS, 16, 16].
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

    /// All (subgroup, row and column of its matrix, element of the matrix).
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
            for (rows, outs) in
                [1, 8, 16, 32, 64, 512].into_iter().flat_map(|r| [64, 2048, 3072, 6160, 131_072].map(|o| (r, o)))
            {
                let shape = Shape::new(rows, outs, &caps);
                assert!(shape.workgroup_bytes() <= workgroup_bytes, "{shape:?}");
                assert_eq!(shape.step % (16 * shape.deep), 0, "{shape:?}");
            }
        }
    }

    #[test]
    fn cooperative_matrices_add_up() {
        let mut shapes: Vec<_> = Shape::COOP.iter().flat_map(|(_, shapes)| shapes).collect();
        shapes.sort_by_key(|shape| format!("{shape:?}"));
        shapes.dedup_by_key(|shape| format!("{shape:?}"));
        let mut worst = 0f64;
        for (example, seed) in Matmul::examples().into_iter().zip(0..) {
            let op = example.op;
            if op.outs > 1000 {
                continue;
            }
            let mut random = Random::new(seed);
            let mut bufs: Vec<_> =
                op.kernel().binds.iter().zip(op.lens()).map(|(b, len)| random.words(b.elem, len)).collect();
            if let Some(words) = op.input(0, &mut || random.uniform()) {
                bufs[0] = words;
            }
            bufs[2].fill(f32::NAN.to_bits());
            let x = super::super::matmul::rows(&bufs[1], op.half).to_vec();
            let line = |i: u32| {
                let mut line = vec![0.0; op.cols as usize];
                op.format.line(&bufs[0], op.lines, i as usize, &mut line);
                line
            };
            for &&shape in &shapes {
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
