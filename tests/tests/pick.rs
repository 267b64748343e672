//! Token choice: the same token on every device, the right distribution, and nothing outside of a filter's set.
#![forbid(unsafe_code)]

use nemoflash::batch::{Batch, PICKED};
use nemoflash::sampling::NOT_FINITE;
use nemoflash::{Exec, Sampling};
use nemoflash_tests::scene::{GREEDY, Outcome, Scene, WARM, everywhere, on_devices};
use nemoflash_tests::{Random, loud};
use std::collections::BTreeSet;

fn settings() -> Vec<Sampling> {
    let base = Sampling { temperature: 0.8, ..GREEDY };
    vec![
        GREEDY,
        Sampling { repetition_penalty: 1.3, ..GREEDY },
        base,
        Sampling { temperature: 2.5, ..base },
        Sampling { temperature: 0.05, ..base },
        Sampling { top_k: 1, ..base },
        Sampling { top_k: 40, ..base },
        Sampling { top_k: 1 << 31, ..base },
        Sampling { top_p: 0.0, ..base },
        Sampling { top_p: 0.5, ..base },
        Sampling { top_p: 0.95, ..base },
        Sampling { min_p: 0.05, ..base },
        Sampling { min_p: 1.0, ..base },
        Sampling { top_k: 60, top_p: 0.9, ..base },
        Sampling { temperature: 1.5, top_k: 100, top_p: 0.97, min_p: 0.01, repetition_penalty: 0.8, ..base },
    ]
}

fn random_scene(vocab: usize, segments: usize, seed: u64) -> Scene {
    let (mut random, mut scene) = (Random::new(seed), Scene::default());
    for (i, how) in (0..segments).zip(settings().into_iter().cycle()) {
        let logits: Vec<f32> = (0..vocab).map(|_| 3.0 * random.normal()).collect();
        let before: Vec<u32> = (0..20).map(|_| random.bits() as u32 % vocab as u32).collect();
        scene.add(&logits, Sampling { seed: random.bits(), ..how }, &before, random.bits() as u32 % 30_000);
        scene.position[i] += 2;
        scene.rows[i] = 1 + i as u32 % 2;
    }
    scene
}

#[test]
fn same_token_on_every_device() {
    let mut scenes: Vec<Scene> = [257, 300, 129, 4096].map(|vocab| random_scene(vocab, 150, vocab as u64)).into();
    scenes.extend([131_072, 140_001].map(|vocab| random_scene(vocab, settings().len(), 1)));
    let want: Vec<Outcome> = scenes.iter().map(|scene| scene.run(&mut Exec::cpu())).collect();
    for (scene, want) in scenes.iter().zip(&want) {
        for (i, (&token, &rows)) in want.tokens.iter().zip(&scene.rows).enumerate() {
            assert!(token < scene.vocab());
            let (segment, bits) = (want.batch.segments[i], want.seen.chunks(scene.vocab().div_ceil(32) as usize));
            let bits = bits.rev().nth(i).unwrap();
            assert_eq!(bits[token as usize / 32] >> (token % 32) & 1, 1, "the token counts as seen");
            let row = want.batch.rows[segment.first as usize];
            let one = (PICKED, scene.position[i] + 1);
            assert_eq!((row.token, row.position), if rows == 1 { one } else { (i as u32, scene.position[i] - 1) });
        }
    }
    everywhere("same_token_on_every_device", |name, exec| {
        for (scene, want) in scenes.iter().zip(&want) {
            let got = scene.run(exec);
            let wrong: Vec<usize> = (0..want.tokens.len()).filter(|&i| got.tokens[i] != want.tokens[i]).collect();
            assert!(wrong.is_empty(), "{name}: vocabulary {}: segments {wrong:?} differ", scene.vocab());
            assert_eq!(got, *want, "{name}");
        }
        // Negative control, and: a run repeats itself, another seed does not.
        let mut other = scenes[1].clone();
        assert_eq!(other.run(exec), want[1], "{name}: twice");
        other.how.iter_mut().for_each(|how| how.seed ^= 1 << 63);
        let changed = other.run(exec).tokens.iter().zip(&want[1].tokens).filter(|(a, b)| a != b).count();
        assert!(changed > 50, "{name}: another seed changed {changed} of {} tokens", want[1].tokens.len());
    });
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let with = |values: &[(usize, f32)]| {
        let mut logits: Vec<f32> = (0..300).map(|i| -1.0 - i as f32 * 0.01).collect();
        values.iter().for_each(|&(i, value)| logits[i] = value);
        logits
    };
    let mut scene = Scene::default();
    let mut want = vec![];
    let mut add = |logits: &[f32], how: Sampling, seen: &[u32], token: u32| {
        scene.add(logits, how, seen, 0);
        want.push(token);
    };
    add(&with(&[(299, 2.0)]), GREEDY, &[], 299);
    add(&with(&[(260, 2.0), (7, 2.0), (299, 2.0)]), GREEDY, &[], 7);
    add(&with(&[(258, 2.0), (2, 1.9999999), (256, 2.0)]), GREEDY, &[], 256);
    add(&[-3.5; 300], GREEDY, &[], 0);
    add(&with(&[(5, 0.0), (3, -0.0)]), GREEDY, &[], 3);
    add(&with(&[(5, -0.0), (3, 0.0)]), GREEDY, &[], 3);
    add(&with(&[(0, f32::NEG_INFINITY), (1, f32::MIN)]), GREEDY, &[], 2);
    add(&with(&[(9, f32::MAX)]), GREEDY, &[], 9);
    // Settings that leave one token, or only equal ones, whatever the draw.
    add(&with(&[(260, 2.0)]), Sampling { top_k: 1, ..WARM }, &[], 260);
    add(&with(&[(260, 2.0)]), Sampling { top_p: 0.0, ..WARM }, &[], 260);
    add(&with(&[(260, 2.0)]), Sampling { min_p: 1.0, ..WARM }, &[], 260);
    add(&with(&[(260, 2.0)]), Sampling { temperature: 1e-5, ..WARM }, &[], 260);
    add(&with(&[(260, 2.0)]), Sampling { temperature: 1e-5, top_p: 0.9, min_p: 0.9, ..WARM }, &[], 260);
    // 3 / 2 = 1.5 falls behind; -1 * 2 = -2 falls behind; with penalty 1 nothing happens.
    let penalty = Sampling { repetition_penalty: 2.0, ..GREEDY };
    add(&with(&[(8, 3.0), (270, 2.0)]), penalty, &[8, 11], 270);
    add(&with(&[(8, 3.0), (270, 2.0)]), penalty, &[11], 8);
    add(&with(&[(8, 3.0), (270, 2.0)]), GREEDY, &[8, 11], 8);
    add(&with(&[]), penalty, &[0], 1);
    add(&with(&[(8, 3.0), (4, 1.5)]), penalty, &[8], 4);
    everywhere("greedy_takes_the_first_of_the_largest", |name, exec| {
        assert_eq!(scene.run(exec).tokens, want, "{name}");
    });
}

#[test]
fn logits_that_are_not_finite_are_reported() {
    let negative_nan = f32::from_bits(0xffc0_0001);
    let filtered = Sampling { top_k: 10, top_p: 0.9, min_p: 0.1, repetition_penalty: 1.5, ..WARM };
    let mut scene = Scene::default();
    for how in [GREEDY, WARM, filtered] {
        for value in [f32::NAN, negative_nan, f32::INFINITY] {
            for at in [0, 1, 255, 256, 1024, 2099] {
                let mut logits = vec![0.25; 2100];
                logits[at] = value;
                scene.add(&logits, how, &[at as u32], 3);
            }
        }
        scene.add(&[f32::NEG_INFINITY; 2100], how, &[], 3);
    }
    let bad = scene.how.len();
    // Negative control: -inf among others is a masked token, not a fault.
    for how in [GREEDY, WARM, filtered] {
        let mut logits = vec![f32::NEG_INFINITY; 2100];
        logits[1500] = 1.0;
        scene.add(&logits, how, &[], 3);
    }
    everywhere("logits_that_are_not_finite_are_reported", |name, exec| {
        let Outcome { tokens, seen, .. } = scene.run(exec);
        assert_eq!(tokens[..bad], vec![NOT_FINITE; bad], "{name}");
        assert_eq!(tokens[bad..], [1500; 3], "{name}");
        let bits: u32 = seen.iter().map(|word| word.count_ones()).sum();
        assert_eq!(bits as usize, bad, "{name}: 18 seen before for each setting, and 3 picked");
    });
}

fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / f64::from(temperature)).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}

/// Chi-square of counts against probabilities, and its degrees of freedom. Tokens expected fewer than 8 times
/// are one bin.
fn chi_square(tokens: &[u32], probabilities: &[f64]) -> (f64, f64) {
    let mut counts = vec![0.0; probabilities.len()];
    tokens.iter().for_each(|&token| counts[token as usize] += 1.0);
    let (mut bins, mut rest) = (vec![], (0.0, 0.0));
    for (count, p) in counts.into_iter().zip(probabilities) {
        let expected = p * tokens.len() as f64;
        if expected < 8.0 {
            rest = (rest.0 + count, rest.1 + expected);
        } else {
            bins.push((count, expected));
        }
    }
    if rest.1 > 0.0 {
        bins.push(rest);
    }
    (bins.iter().map(|(count, expected)| (count - expected).powi(2) / expected).sum(), bins.len() as f64 - 1.0)
}

/// Draws of one distribution over positions, and over seeds, follow it on the CPU; chi-square has mean f and
/// standard deviation sqrt(2 f). Devices draw the same tokens.
#[test]
fn draws_follow_softmax() {
    let mut random = Random::new(5);
    let logits: Vec<f32> = (0..300).map(|_| 1.5 * random.normal()).collect();
    let how = Sampling { temperature: 0.7, seed: 3, ..GREEDY };
    let over_positions = |i: u32| (how, i);
    let over_seeds = |i: u32| (Sampling { seed: i.into(), ..how }, 256);
    let (right, wrong) = (softmax(&logits, 0.7), softmax(&logits, 0.77));
    let mut all = vec![];
    for (what, draw) in [("positions", &over_positions as &dyn Fn(u32) -> _), ("seeds", &over_seeds)] {
        let scenes = (0..20u32).map(|part| Scene::of(&logits, (part * 512..(part + 1) * 512).map(draw)));
        let tokens: Vec<u32> = scenes.flat_map(|scene| scene.run(&mut Exec::cpu()).tokens).collect();
        let (right, freedom) = chi_square(&tokens, &right);
        // Negative control: a temperature that is wrong by a tenth does not pass.
        let (wrong, _) = chi_square(&tokens, &wrong);
        let limit = freedom + 4.0 * (2.0 * freedom).sqrt();
        loud(&format!("{what}: chi-square {right:.0}, control {wrong:.0}, limit {limit:.0}, freedom {freedom}"));
        assert!(right < limit && limit < wrong, "{what}");
        all.push(tokens);
    }
    // Neighbouring positions, and neighbouring seeds, draw independently: equal pairs come as often as chance.
    let chance: f64 = right.iter().map(|p| p * p).sum();
    for tokens in &all {
        let pairs = tokens.len() as f64 - 1.0;
        let equal = tokens.windows(2).filter(|pair| pair[0] == pair[1]).count() as f64;
        let deviations = (equal - pairs * chance) / (pairs * chance).sqrt();
        assert!(deviations.abs() < 4.0, "{deviations} standard deviations");
    }
    on_devices("draws_follow_softmax", |name, exec| {
        assert_eq!(Scene::of(&logits, (0..512).map(over_positions)).run(exec).tokens, all[0][..512], "{name}");
        assert_eq!(Scene::of(&logits, (0..512).map(over_seeds)).run(exec).tokens, all[1][..512], "{name}");
    });
}

/// The tokens that the filters leave, by sorting: an oracle that shares nothing with the operator.
fn allowed(logits: &[f32], how: &Sampling) -> BTreeSet<u32> {
    let probabilities = softmax(logits, how.temperature);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    if how.top_k > 0 {
        order.truncate(how.top_k as usize);
    }
    let total: f64 = order.iter().map(|&i| probabilities[i]).sum();
    let (mut before, mut set) = (0.0, BTreeSet::new());
    for &i in &order {
        let distance = before / total - f64::from(how.top_p);
        assert!(how.top_p == 1.0 || distance.abs() > 1e-5, "the test's top_p is on the border of a token");
        if distance > 0.0 && how.top_p < 1.0 {
            break;
        }
        before += probabilities[i];
        if probabilities[i] >= f64::from(how.min_p) * probabilities[order[0]] {
            set.insert(i as u32);
        }
    }
    set
}

/// Draws fill the allowed set and never leave it.
#[test]
fn filters_allow_what_sorting_allows() {
    let mut random = Random::new(11);
    let base = Sampling { temperature: 1.7, ..GREEDY };
    let cases = [
        Sampling { top_k: 2, ..base },
        Sampling { top_k: 17, ..base },
        Sampling { top_k: 40, ..base },
        Sampling { top_p: 0.1, ..base },
        Sampling { top_p: 0.45, ..base },
        Sampling { min_p: 0.5, ..base },
        Sampling { min_p: 0.4, ..base },
        Sampling { top_k: 30, top_p: 0.6, ..base },
        Sampling { top_k: 30, top_p: 0.8, min_p: 0.45, ..base },
    ];
    let lists: Vec<Vec<f32>> = [64, 300].map(|vocab| (0..vocab).map(|_| random.normal() + 2.0).collect()).into();
    let every: Vec<_> = lists.iter().flat_map(|logits| cases.map(|how| (logits, how))).collect();
    let draw = |logits: &[f32], how: Sampling, draws: u32, exec: &mut Exec| -> BTreeSet<u32> {
        let each = (0..draws).map(|i| (Sampling { seed: u64::from(i / 2), ..how }, i));
        Scene::of(logits, each).run(exec).tokens.into_iter().collect()
    };
    for (logits, how) in &every {
        let allowed = allowed(logits, how);
        let drawn = draw(logits, *how, 512, &mut Exec::cpu());
        // So many draws find nearly all of a small set: the filters are not stricter than they should be.
        let missing = allowed.difference(&drawn).count();
        assert!(allowed.len() > 60 || missing * 8 <= allowed.len(), "{how:?}: {missing} of {}", allowed.len());
        // Negative control: without the filter, as few seeds as a device draws leave the set.
        assert!(!draw(logits, base, 48, &mut Exec::cpu()).is_subset(&allowed), "{how:?}: filters nothing");
    }
    everywhere("filters_allow_what_sorting_allows", |name, exec| {
        for (logits, how) in &every {
            let allowed = allowed(logits, how);
            let outside: Vec<u32> = draw(logits, *how, 48, exec).difference(&allowed).copied().collect();
            assert!(outside.is_empty(), "{name}: {} logits, {how:?}: {outside:?} are not allowed", logits.len());
        }
    });
}

/// Equal logits at the border of a filter are all kept.
#[test]
fn equal_logits_share_their_fate() {
    let logits: Vec<f32> = (0..300).map(|i| if i % 50 == 0 { 4.0 } else { -30.0 }).collect();
    let want: BTreeSet<u32> = (0..6).map(|i| i * 50).collect();
    everywhere("equal_logits_share_their_fate", |name, exec| {
        for how in [Sampling { top_k: 2, ..WARM }, Sampling { top_p: 0.3, ..WARM }, Sampling { min_p: 1.0, ..WARM }] {
            let tokens = Scene::of(&logits, (0..60).map(|i| (how, i))).run(exec).tokens;
            assert_eq!(tokens.into_iter().collect::<BTreeSet<_>>(), want, "{name}: {how:?}");
        }
    });
}

/// Replayed without the host, a step of one row moves on by itself: as many single steps give the same.
#[test]
fn decoding_needs_no_host() {
    const STEPS: u32 = 12;
    let mut random = Random::new(2);
    let logits: Vec<f32> = (0..300).map(|_| 2.0 * random.normal()).collect();
    let penalty = Sampling { repetition_penalty: 10.0, ..GREEDY };
    everywhere("decoding_needs_no_host", |name, exec| {
        for (how, distinct) in [(Sampling { seed: 8, ..WARM }, None), (penalty, Some(12)), (GREEDY, Some(1))] {
            let mut tokens = vec![];
            let scene = Scene::of(&logits, [(how, 256)]);
            let (plan, bufs, size) = scene.buffers(exec);
            for _ in 0..STEPS {
                let ticket = exec.submit(&[(&plan, size)], Some((bufs[6], 1))).expect("submitted");
                tokens.extend(pollster::block_on(exec.collect(ticket)).expect("collected"));
            }
            let batch = pollster::block_on(exec.read(bufs[0])).expect("read");
            let row = Batch::from_words(&batch).rows[0];
            assert_eq!((row.position, row.token), (256 + STEPS, PICKED), "{name}");
            let mut single = vec![];
            for step in 0..STEPS {
                let mut scene = Scene::default();
                scene.add(&logits, how, &single, 256 + step);
                single.extend(scene.run(exec).tokens);
            }
            assert_eq!(tokens, single, "{name}: {how:?}");
            let different = tokens.iter().collect::<BTreeSet<_>>().len();
            // On equal logits greedy repeats itself; with a large penalty it does not while others are positive.
            assert!(distinct.is_none_or(|distinct| distinct == different), "{name}: {how:?}: {tokens:?}");
        }
    });
}
