//! What the Mamba2 operators share: their dimensions, and the equations of spec 3.4 step 4 for their CPU twins.

use crate::batch::{Batch, Size, max_tiles, tiles};
use crate::op::Example;

/// Rows of a chunk: `CHUNK` of `lib/ssd_block.wgsl`.
pub(super) const CHUNK: u32 = 64;

/// Number of values of the scores of all chunks of a step, `[tiles, CHUNK, CHUNK]`.
pub(super) fn scores_len(rows: u32, slots: u32) -> u64 {
    let tiles = max_tiles(Size { rows, segments: slots.min(rows) }, CHUNK);
    u64::from(tiles) * u64::from(CHUNK) * u64::from(CHUNK)
}

/// The dimensions of a Mamba2 block and of its buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dims {
    pub heads: usize,
    pub head_dim: usize,
    pub d_state: usize,
    pub in_stride: usize,
    pub slot_len: usize,
    pub state_at: usize,
}

impl Dims {
    pub fn d_inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Channels of the convolution: x, B, C.
    pub fn channels(&self) -> usize {
        self.d_inner() + 2 * self.d_state
    }

    /// Number of values of a state, `[heads, head_dim, d_state]`.
    pub fn state_len(&self) -> usize {
        self.d_inner() * self.d_state
    }

    /// Where the state of a slot begins in `state`.
    pub fn state(&self, slot: u32) -> usize {
        slot as usize * self.slot_len + self.state_at
    }

    /// The time step Δ of a row and a head, after softplus.
    pub fn step(&self, p: &[f32], params: &[f32], row: usize, head: usize) -> f64 {
        let raw = p[row * self.in_stride + self.in_stride - self.heads + head];
        softplus(f64::from(raw) + f64::from(params[2 * self.heads + head]))
    }

    /// The state at the beginning of a segment, `[heads, head_dim, d_state]`. At position 0 it is zero.
    pub fn incoming(&self, batch: &Batch, first: u32, state: &[f32]) -> Vec<f64> {
        let row = batch.rows[first as usize];
        let at = self.state(row.slot);
        match row.position {
            0 => vec![0.0; self.state_len()],
            _ => state[at..at + self.state_len()].iter().map(|&v| v.into()).collect(),
        }
    }
}

/// `log(1 + exp(x))`; above 20 this equals x.
pub(super) fn softplus(x: f64) -> f64 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// The CPU twin of a chunked scan. `of(row, at)` is x, B and C of a row, in the order of the convolution's channels. Then
/// come p, params and scores, as bound.
pub(super) fn chunked(
    dims: &Dims,
    batch: &Batch,
    of: &dyn Fn(usize, usize) -> f64,
    [p, params, scores]: [&[f32]; 3],
    state: &mut [f32],
    y: &mut [f32],
) {
    let (d_inner, d_state, chunk) = (dims.d_inner(), dims.d_state, CHUNK as usize);
    let mut carried = vec![];
    for (tile, (segment, first, rows)) in tiles(batch, CHUNK).enumerate() {
        if first == segment.first {
            carried = dims.incoming(batch, first, state);
        }
        let (first, rows) = (first as usize, rows as usize);
        for head in 0..dims.heads {
            let steps: Vec<f64> = (0..rows).map(|r| dims.step(p, params, first + r, head)).collect();
            // The sum of Δ A over the rows after r up to t, which is s[t] - s[r].
            let between = |r: usize, t: usize| steps[r + 1..=t].iter().sum::<f64>() * f64::from(params[head]);
            let fades: Vec<f64> = (0..rows * rows)
                .map(|i| (i / rows, i % rows))
                .map(|(r, t)| if r <= t { between(r, t).exp() } else { 0.0 })
                .collect();
            let from_start: Vec<f64> =
                (0..rows).map(|t| (between(0, t) + steps[0] * f64::from(params[head])).exp()).collect();
            for i in head * dims.head_dim..(head + 1) * dims.head_dim {
                let s = &mut carried[i * d_state..(i + 1) * d_state];
                for t in 0..rows {
                    let before: f64 = s.iter().enumerate().map(|(j, s)| s * of(first + t, d_inner + d_state + j)).sum();
                    let inside: f64 = (0..=t)
                        .map(|r| {
                            f64::from(scores[(tile * chunk + r) * chunk + t])
                                * fades[r * rows + t]
                                * steps[r]
                                * of(first + r, i)
                        })
                        .sum();
                    let skip = f64::from(params[dims.heads + head]) * of(first + t, i);
                    y[(first + t) * d_inner + i] = (from_start[t] * before + inside + skip) as f32;
                }
                s.iter_mut().for_each(|s| *s *= from_start[rows - 1]);
                for r in 0..rows {
                    let dx = fades[r * rows + rows - 1] * steps[r] * of(first + r, i);
                    for (j, s) in s.iter_mut().enumerate() {
                        *s += dx * of(first + r, d_inner + j);
                    }
                }
            }
        }
        if first + rows == (segment.first + segment.rows) as usize {
            for (to, &s) in state[dims.state(segment.slot)..].iter_mut().zip(&carried) {
                *to = s as f32;
            }
        }
    }
}

/// Parameters of a block in the range of trained models: A from -0.02 to -4, D, and dt_bias for time steps of 0.02 to
/// 0.7.
pub(super) fn params(heads: u32, uniform: &mut dyn FnMut() -> f32) -> Vec<u32> {
    let ranges = [(-0.02, -4.0), (0.0, 1.0), (-4.0, 0.0)];
    let row = |(low, high): (f32, f32)| (0..heads).map(|_| low + (high - low) * uniform()).collect::<Vec<_>>();
    ranges.into_iter().flat_map(row).map(f32::to_bits).collect()
}

/// x, B and C in the range that silu gives after the convolution: mostly positive.
pub(super) fn convolved(len: u64, uniform: &mut dyn FnMut() -> f32) -> Vec<u32> {
    (0..len).map(|_| (1.5 * uniform() - 0.28).to_bits()).collect()
}

/// The numbers of a Mamba2 scan for these segments: (rows, in_stride, slots, slot_len, state_at). Each slot has a few
/// unused values at its end.
pub(super) fn numbers(
    heads: u32,
    head_dim: u32,
    d_state: u32,
    segments: &[(u32, u32, u32)],
) -> (u32, u32, u32, u32, u32) {
    let d_inner = heads * head_dim;
    let state_at = 4 * (d_inner + 2 * d_state);
    let rows = segments.iter().map(|s| s.2).sum();
    let slots = segments.iter().map(|s| s.0).max().unwrap_or(0) + 1;
    (rows, 2 * d_inner + 2 * d_state + heads, slots, state_at + d_inner * d_state + 8, state_at)
}

/// The sizes on which every scan is tested: (heads, head_dim, d_state, segments).
pub(super) fn scan_examples<O>(make: impl Fn(u32, u32, u32, &[(u32, u32, u32)]) -> O) -> Vec<Example<O>> {
    let case = |heads, head_dim, d_state, segments: &[(u32, u32, u32)]| {
        Example::segments(make(heads, head_dim, d_state, segments), segments)
    };
    vec![
        case(1, 4, 4, &[(0, 0, 1)]),
        case(2, 64, 128, &[(0, 256, 1)]),
        case(1, 16, 16, &[(1, 5, 2), (0, 0, 3)]),
        case(3, 32, 64, &[(0, 7, 63)]),
        case(1, 64, 128, &[(0, 0, 64)]),
        case(1, 64, 64, &[(0, 1, 65)]),
        case(1, 20, 12, &[(0, 300, 130)]),
        case(5, 12, 100, &[(2, 9, 17), (0, 0, 1), (1, 64, 66), (3, 2, 1)]),
        case(1, 96, 16, &[(0, 0, 127)]),
        case(1, 64, 32, &[(1, 0, 200), (0, 31, 129), (2, 8, 1)]),
        case(1, 4, 16, &[(0, 3, 500)]),
    ]
}
