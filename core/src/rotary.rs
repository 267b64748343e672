//! Tables of rotary angles, one for each pair of base and head width.

use crate::Result;
use crate::blocks::Block;
use crate::buf::{Buf, Elem};
use crate::exec::Exec;

/// The table of angles of each attention block, [positions, head_dim / 8, cos | sin, 4]. Blocks with the same base and
/// head width share a table. Angles are computed in f64, because WGSL promises no precision for large angles.
pub(crate) async fn rotaries<'a>(
    exec: &mut Exec,
    blocks: impl Iterator<Item = &'a Block>,
    positions: u32,
) -> Result<Vec<Option<Buf>>> {
    let mut tables: Vec<((Option<f64>, u32), Buf)> = vec![];
    let mut out = vec![];
    for block in blocks {
        let Block::Attention(attention) = block else {
            out.push(None);
            continue;
        };
        let key = attention.rotary();
        let known = tables.iter().find(|(other, _)| *other == key).map(|(_, buf)| *buf);
        let buf = match known {
            Some(buf) => buf,
            None => {
                let (theta, head_dim) = key;
                let buf = exec.alloc("rotary table", u64::from(positions) * u64::from(head_dim), Elem::F32).await?;
                // A dry run needs no angles.
                let positions = if matches!(exec, Exec::Dry(_)) { 0 } else { positions };
                // Written in pieces, so that a long context needs no second copy of the table on the host.
                for first in (0..positions).step_by(1024) {
                    let rows = 1024.min(positions - first);
                    let words: Vec<u32> = (first..first + rows).flat_map(|p| angles(theta, head_dim, p)).collect();
                    exec.write(buf, u64::from(first) * u64::from(head_dim), &words);
                }
                tables.push((key, buf));
                buf
            }
        };
        out.push(Some(buf));
    }
    Ok(out)
}

fn angles(theta: Option<f64>, head_dim: u32, position: u32) -> impl Iterator<Item = u32> {
    (0..head_dim / 8).flat_map(move |quad| {
        let angle = move |j: u32| {
            theta.map_or(0.0, |base| f64::from(position) * base.powf(-2.0 * f64::from(j) / f64::from(head_dim)))
        };
        let four = move |f: fn(f64) -> f64| (4 * quad..4 * quad + 4).map(move |j| (f(angle(j)) as f32).to_bits());
        four(f64::cos).chain(four(f64::sin))
    })
}
