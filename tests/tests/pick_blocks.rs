//! Blocks of tokens spare token choice most of the logits, and change nothing.
#![forbid(unsafe_code)]

use nemoflash::batch::Size;
use nemoflash::kernel::{Const, Kernel, Source};
use nemoflash::op::{Example, Op};
use nemoflash::ops::Pick;
use nemoflash::{Caps, Exec, Sampling};
use nemoflash_tests::scene::{Scene, WARM, on_devices};
use nemoflash_tests::{Random, loud};
use std::sync::LazyLock;

nemoflash::numbers! {
    /// [`Pick`] with a fault: its floors are too high, so that it drops blocks of which tokens should be kept.
    pub struct HighFloor {
        /// As in [`Pick`].
        pub rows: u32,
        /// As in [`Pick`].
        pub vocab: u32,
        /// As in [`Pick`].
        pub slots: u32,
    }
}

impl HighFloor {
    fn right(&self) -> Pick {
        Pick { rows: self.rows, vocab: self.vocab, slots: self.slots }
    }
}

impl Op for HighFloor {
    fn kernel(&self) -> Kernel {
        static PARTS: LazyLock<Vec<Source>> = LazyLock::new(|| {
            let [batch, choice, Source::Text(pick)] = Pick { rows: 1, vocab: 1, slots: 1 }.kernel().parts[..] else {
                unreachable!("three texts")
            };
            let wrong = pick.replace("SLACK: f32 = 1.0001", "SLACK: f32 = 0.25");
            assert_ne!(wrong, pick);
            vec![batch, choice, Source::Text(wrong.leak())]
        });
        Kernel { parts: &PARTS, ..self.right().kernel() }
    }
    fn consts(&self, caps: &Caps) -> Vec<Const> {
        // One more than the right one has: devices keep pipelines by name and constants.
        let mut consts = self.right().consts(caps);
        consts.push(("FAULT", 1));
        consts
    }
    fn lens(&self) -> Vec<u64> {
        self.right().lens()
    }
    fn grid(&self, size: Size, caps: &Caps) -> [u32; 3] {
        Op::grid(&self.right(), size, caps)
    }
    fn cpu(&self, _: Size, _: &mut [Vec<u32>]) {}
    fn examples() -> Vec<Example<Self>> {
        vec![]
    }
}

/// What blocks of tokens rule out changes nothing, be it all of them but one, a few, or none; tokens that pass may fit
/// the kernel's list or not.
#[test]
fn blocks_rule_out_only_what_is_dropped() {
    const VOCAB: usize = 70_001;
    let mut random = Random::new(7);
    let mut normal = |scale: f32| (0..VOCAB).map(|_| scale * random.normal()).collect::<Vec<f32>>();
    let equal = |count: usize, step: usize| {
        (0..VOCAB)
            .map(|i| if i % step == 9 && i < count * step { 4.0 } else { -((i % 77) as f32) })
            .collect::<Vec<f32>>()
    };
    let mut peaked = normal(2.0);
    peaked[VOCAB - 3] = 40.0;
    let mut crowded = normal(1.0);
    (0..100).for_each(|i| crowded[5130 + i] = 9.0 + i as f32 / 64.0);
    let mut masked = vec![f32::NEG_INFINITY; VOCAB];
    (0..3).for_each(|i| masked[i * 30_000] = i as f32);
    let shapes = [normal(3.0), normal(0.01), peaked, crowded, equal(20, 997), equal(600, 113), equal(900, 7), masked];
    let mut how = vec![];
    // There are 547 blocks.
    how.extend([1, 2, 40, 547, 548, 3000].map(|top_k| Sampling { top_k, ..WARM }));
    how.extend([0.05, 0.5, 0.9, 0.999].map(|top_p| Sampling { top_p, ..WARM }));
    let alone = 3 * how.len();
    how.push(Sampling { min_p: 0.02, ..WARM });
    how.push(Sampling { top_k: 60, top_p: 0.8, ..WARM });
    how.push(Sampling { top_p: 0.9, min_p: 0.3, ..WARM });
    how.push(Sampling { top_k: 700, top_p: 0.95, min_p: 0.001, repetition_penalty: 1.4, ..WARM });
    let scenes = shapes.map(|logits| {
        let each = how.iter().flat_map(|how| (0..3).map(|seed| (Sampling { seed, ..*how }, 50)));
        let mut scene = Scene::of(&logits, each);
        scene.seen.iter_mut().for_each(|seen| *seen = (5180..5250).collect());
        scene
    });
    let want = scenes.each_ref().map(|scene| scene.run(&mut Exec::cpu()).tokens);
    on_devices("blocks_rule_out_only_what_is_dropped", |name, exec| {
        let (mut by_count, mut by_mass) = (0, 0);
        for (i, (scene, want)) in scenes.iter().zip(&want).enumerate() {
            let got = scene.run(exec).tokens;
            let wrong: Vec<_> = (0..want.len()).filter(|&i| got[i] != want[i]).map(|i| scene.how[i]).collect();
            assert!(wrong.is_empty(), "{name}: shape {i}: {wrong:?}");
            let [rows, slots] = [want.len() as u32; 2];
            let made = scene.buffers_of(HighFloor { rows, vocab: scene.vocab(), slots }, exec);
            let wrong = Scene::run_made(made, exec).tokens;
            let different = |range: std::ops::Range<usize>| range.filter(|&i| wrong[i] != want[i]).count();
            by_count += different(0..18);
            by_mass += different(18..alone);
        }
        // Negative control.
        loud(&format!("{name}: floors that are too high change {by_count} tokens of top-k and {by_mass} of top-p"));
        assert!(by_count > 5 && by_mass > 5, "{name}");
    });
}
