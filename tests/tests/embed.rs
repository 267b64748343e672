//! The parts of a split vocabulary and the meta tokens fill one x between them.
#![forbid(unsafe_code)]

use nemoflash::batch::{BATCH_WORDS, Batch, PICKED};
use nemoflash::ops::Embed;
use nemoflash::plan::Plan;
use nemoflash::{Buf, Elem, Exec, Format};
use nemoflash_tests::{Mode, Random, targets_in};

const WIDTH: u32 = 40;
/// First token and rows of each part: three parts of a vocabulary of 101, then 7 meta tokens.
const PARTS: [(u32, u32); 4] = [(0, 64), (64, 36), (100, 1), (101, 7)];

/// x after the first `parts` parts; it begins as zeros.
fn embed(exec: &mut Exec, table: &[u32], batch: &Batch, picked: &[u32], parts: usize) -> Vec<u32> {
    let rows = batch.rows.len() as u32;
    let mut filled = |name: &str, len: u64, elem: Elem, words: &[u32]| -> Buf {
        let buf = pollster::block_on(exec.alloc(name, len, elem)).expect("room");
        exec.write(buf, 0, words);
        buf
    };
    let slots = picked.len() as u32;
    let x = filled("x", u64::from(rows * WIDTH), Elem::F32, &[]);
    let batch_buf = filled("batch", BATCH_WORDS, Elem::U32, &batch.words());
    let picked = filled("picked", slots.into(), Elem::U32, picked);
    let mut plan = Plan::default();
    for &(first, lines) in &PARTS[..parts] {
        let words = &table[(first * WIDTH / 2) as usize..][..(lines * WIDTH / 2) as usize];
        let part = filled("w", u64::from(lines * WIDTH / 2), Elem::Weights, words);
        let op = Embed { rows, cols: WIDTH, first, lines, slots, format: Format::Bf16 };
        plan.add(op, &[batch_buf, picked, part, x]);
    }
    pollster::block_on(async {
        exec.prepare(&mut plan).await?;
        let ticket = exec.submit(&[(&plan, batch.size())], None)?;
        exec.collect(ticket).await?;
        exec.read(x).await
    })
    .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn parts_fill_one_x() {
    let table = Random::new(4).words(Elem::Weights, 108 * u64::from(WIDTH / 2));
    let picked = [3, 100, 64, 107];
    let mut batch = Batch::default();
    batch.push(2, 0, &[101, 102, 103, 104, 105, 106, 107, 0, 63, 64], true);
    batch.push(1, 300, &[PICKED], true);
    batch.push(3, 0, &[99, 100, PICKED], true);
    batch.push(0, 9, &[PICKED], true);
    let tokens = [101, 102, 103, 104, 105, 106, 107, 0, 63, 64, 100, 99, 100, 107, 3];
    let value = |at: u32| {
        f32::from_bits(if at.is_multiple_of(2) {
            table[at as usize / 2] << 16
        } else {
            table[at as usize / 2] & 0xffff_0000
        })
    };
    let want: Vec<u32> = tokens
        .iter()
        .flat_map(|token| (0..WIDTH).map(move |i| token * WIDTH + i))
        .map(|at| value(at).to_bits())
        .collect();
    let check = |name: &str, exec: &mut Exec| {
        assert_eq!(embed(exec, &table, &batch, &picked, 4), want, "{name}");
        // Negative control: without the meta tokens' part, their rows stay zero.
        let text_only = embed(exec, &table, &batch, &picked, 3);
        assert_eq!(text_only[..7 * WIDTH as usize], [0; 7 * WIDTH as usize], "{name}");
        assert_ne!(text_only, want, "{name}");
    };
    check("CPU", &mut Exec::cpu());
    for target in targets_in("parts_fill_one_x", &[Mode::Floor]) {
        let mut device = target.open().unwrap_or_else(|e| panic!("{target}: {e}"));
        check(&device.label.clone(), &mut device.exec);
    }
}
