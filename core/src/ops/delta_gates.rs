//! DeltaNet before the scan: normalises queries and keys to unit length, and computes beta (spec 3.5 steps 4 and 5).

use crate::batch::Size;
use crate::buf::Elem::F32;
use crate::caps::Caps;
use crate::kernel::{Const, Kernel, Source, read, update, write};
use crate::numbers;
use crate::op::{Example, Op, floats, floats_mut};
use nemoflash_shaders as wgsl;

numbers! {
    /// Makes q and k of each head unit vectors in place, `x / sqrt(sum x² + 1e-6)`, and computes `beta = sigmoid(raw)`.
    ///
    /// Bindings: `p` [rows, in_stride] is the joint projection q | k | v | raw beta, of which only raw beta is read.
    /// `qkv` [rows, 3, heads, head_dim] is q | k | v after convolution and silu. `beta` is [rows, heads].
    pub struct DeltaGates {
        /// Rows the buffers hold.
        pub rows: u32,
        /// Heads.
        pub heads: u32,
        /// Values of one q, k or v of a head, a multiple of 4.
        pub head_dim: u32,
        /// Values in one row of `p`: `heads * (3 * head_dim + 1)`.
        pub in_stride: u32,
    }
}

const KERNEL: Kernel = Kernel {
    name: "delta_gates",
    parts: &[Source::Reduce, Source::Text(wgsl::GRID), Source::Text(wgsl::DELTA_GATES)],
    binds: &[read("p", F32), update("qkv", F32), write("beta", F32)],
};

impl Op for DeltaGates {
    fn kernel(&self) -> Kernel {
        KERNEL
    }

    fn consts(&self, caps: &Caps) -> Vec<Const> {
        vec![("WG", lanes(self.head_dim, caps))]
    }

    fn lens(&self) -> Vec<u64> {
        let [rows, heads, head_dim] = [self.rows, self.heads, self.head_dim].map(u64::from);
        vec![rows * u64::from(self.in_stride), rows * 3 * heads * head_dim, rows * heads]
    }

    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        caps.grid(u64::from(size.rows) * u64::from(self.heads))
    }

    fn cpu(&self, size: Size, bufs: &mut [Vec<u32>]) {
        let [p, qkv, beta] = bufs else { unreachable!() };
        let (p, qkv, beta) = (floats(p), floats_mut(qkv), floats_mut(beta));
        let [heads, head_dim, in_stride] = [self.heads, self.head_dim, self.in_stride].map(|n| n as usize);
        let width = heads * head_dim;
        for row in 0..size.rows as usize {
            // The heads of q, then those of k. The heads of v are left alone.
            for x in qkv[row * 3 * width..][..2 * width].chunks_mut(head_dim) {
                let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
                let norm = (squares + 1e-6).sqrt();
                x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
            }
            let raw = &p[row * in_stride + 3 * width..][..heads];
            for (beta, &raw) in beta[row * heads..][..heads].iter_mut().zip(raw) {
                *beta = sigmoid(raw.into()) as f32;
            }
        }
    }

    fn examples() -> Vec<Example<Self>> {
        let case = |rows, heads, head_dim| {
            let in_stride = heads * (3 * head_dim + 1);
            Example::rows(DeltaGates { rows, heads, head_dim, in_stride }, rows)
        };
        // 500 rows of 132 heads are more than the 65,535 workgroups of one grid dimension.
        let odd = [case(1, 1, 4), case(3, 3, 16), case(5, 2, 32), case(7, 1, 96), case(63, 2, 64), case(500, 132, 4)];
        let real = [case(1, 16, 128), case(65, 3, 128), case(2, 1, 192), case(2, 1, 256)];
        [&odd[..], &real].concat()
    }
}

/// Number of threads that share the values of a head, four values each. They are at most one subgroup, which needs no
/// barrier. Without subgroups they are at most 32, and sums go through workgroup memory.
pub(super) fn lanes(head_dim: u32, caps: &Caps) -> u32 {
    (head_dim / 4).next_power_of_two().min(caps.subgroup.unwrap_or(32))
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
