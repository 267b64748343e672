//! Sequences of the engine: slots, snapshots, seeds, limits and stops.
#![forbid(unsafe_code)]

use nemoflash::config::BlockKind;
use nemoflash::{Engine, EngineOptions, Error, Event, Exec, Kv, Piece, Result, Sampling, Transcript};
use nemoflash_tests::{Mode, expected, load, targets_in};
use pollster::block_on;
use std::ops::ControlFlow;

const CONTEXT: u32 = 60;

fn engine(exec: Exec) -> Engine {
    with_context(exec, CONTEXT)
}

fn with_context(exec: Exec, context: u32) -> Engine {
    let loaded = load(exec, "mixed").expect("model");
    let options = EngineOptions { slots: 3, context, kv: Kv::F32, prefill_rows: Some(16), ..Default::default() };
    block_on(Engine::new(loaded, options)).expect("engine")
}

/// On the CPU and on every device, as it is: what is tested here is the host's part.
fn everywhere(suite: &str, test: fn(&str, &mut Engine)) {
    test("cpu", &mut engine(Exec::cpu()));
    for target in targets_in(suite, &[Mode::Full]) {
        let mut engine = engine(target.lend().expect("device").exec);
        test(&target.to_string(), &mut engine);
        target.give_back(engine.into_exec());
    }
}

fn ids() -> Vec<u32> {
    expected("mixed", "").ids
}

/// Everything that a run reports, up to the event that `stop` names.
fn run(engine: &mut Engine, slot: u32, ids: &[u32], most: u32, stop: fn(usize, Event) -> bool) -> Result<Vec<Event>> {
    let mut events = vec![];
    let mut on_event = |event| {
        events.push(event);
        if stop(events.len(), event) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    block_on(engine.generate(slot, ids, most, &mut on_event))?;
    Ok(events)
}

/// The tokens of a whole run.
fn tokens(engine: &mut Engine, slot: u32, ids: &[u32], most: u32) -> Vec<u32> {
    let events = run(engine, slot, ids, most, |_, _| false).expect("generate");
    events.into_iter().filter_map(|event| if let Event::Token(token) = event { Some(token) } else { None }).collect()
}

fn fresh(engine: &mut Engine, sampling: Sampling, ids: &[u32], most: u32) -> Vec<u32> {
    engine.begin(0, &sampling).expect("begin");
    tokens(engine, 0, ids, most)
}

fn step(engine: &mut Engine, slot: u32, tokens: &[u32]) -> u32 {
    let picked = block_on(engine.step(&[Piece { slot, tokens, pick: true }])).expect("step");
    picked[0].expect("picked")
}

#[test]
fn a_snapshot_goes_on_as_before() {
    everywhere("snapshots", |label, engine| {
        let ids = ids();
        for penalty in [1.0, 1.3] {
            let sampling = Sampling { repetition_penalty: penalty, ..Default::default() };
            engine.begin(0, &sampling).expect("begin");
            let first = step(engine, 0, &ids[..16]);
            let snapshot = block_on(engine.snapshot(0)).expect("snapshot");
            let mut want = vec![first];
            for _ in 0..10 {
                want.push(step(engine, 0, &[want[want.len() - 1]]));
            }
            // Another sequence in between, and slots that never began one: 1 by steps, 2 by a run.
            fresh(engine, Sampling::default(), &ids[20..40], 5);
            if penalty != 1.0 {
                engine.begin(1, &sampling).expect("begin");
                engine.begin(2, &sampling).expect("begin");
                engine.set_sampling(0, &sampling).expect("sampling");
            }
            for slot in [1, 0] {
                engine.restore(slot, &snapshot).expect("restore");
                assert_eq!(engine.position(slot).expect("position"), 16);
                let mut got = vec![first];
                for _ in 0..10 {
                    got.push(step(engine, slot, &[got[got.len() - 1]]));
                }
                assert_eq!(want, got, "{label}: slot {slot}, penalty {penalty}");
            }
            for slot in [2, 0, 2] {
                engine.restore(slot, &snapshot).expect("restore");
                assert_eq!(want[1..], tokens(engine, slot, &[first], 10), "{label}: slot {slot}, run");
            }
            engine.release(snapshot);
        }
        // After a run nothing is left to keep.
        assert!(matches!(block_on(engine.snapshot(0)), Err(Error::Prompt { .. })), "{label}");
    });
}

#[test]
fn two_at_once_are_two_alone() {
    everywhere("two slots", |label, engine| {
        let ids = ids();
        let alone = [&ids[..9], &ids[30..55]].map(|prompt| fresh(engine, Sampling::default(), prompt, 12));
        assert_ne!(alone[0], alone[1], "{label}");
        two_at_once(label, engine, &alone);
    });
}

/// Decode steps of several sequences, which run ahead of the host, give what each gives alone; so do those of a second run that
/// goes on. What cannot be continued says so.
#[test]
fn sequences_decode_ahead_together() {
    everywhere("decode", |label, engine| {
        let ids = ids();
        let prompts = [(2, &ids[..9]), (0, &ids[30..42])];
        for penalty in [1.0, 1.3] {
            let sampling = Sampling { repetition_penalty: penalty, ..Default::default() };
            let alone = prompts.map(|(_, prompt)| fresh(engine, sampling, prompt, 15));
            let mut next: Vec<(u32, u32)> =
                prompts.iter().map(|(slot, prompt)| (*slot, prompt[prompt.len() - 1])).collect();
            for (slot, prompt) in prompts {
                engine.begin(slot, &sampling).expect("begin");
                let read =
                    block_on(engine.prefill(slot, &prompt[..prompt.len() - 1], &mut |_| ControlFlow::Continue(())));
                assert!(read.expect("prefill").is_continue());
            }
            // No step runs no token: with a penalty, one that counted as seen would not be chosen again.
            let none = block_on(engine.decode(&[(2, alone[0][0])], 0, &mut |_| panic!("a step")));
            assert!(none.expect("no steps").is_continue());
            let mut together = [vec![], vec![]];
            for steps in [10, 1, 4] {
                let mut on_step = |tokens: &[u32]| {
                    together.iter_mut().zip(tokens).for_each(|(all, token)| all.push(*token));
                    ControlFlow::Continue(())
                };
                assert!(block_on(engine.decode(&next, steps, &mut on_step)).expect("decode").is_continue());
                next.iter_mut().zip(&together).for_each(|((_, token), all)| *token = all[all.len() - 1]);
            }
            assert_eq!(alone, together, "{label}, penalty {penalty}");
            assert_eq!(engine.position(0).expect("position"), 11 + 15, "{label}");
        }
        let mut on_step = |_: &[u32]| ControlFlow::Break(());
        for (next, steps) in [(&[(0, 1), (0, 2)][..], 1), (&[(0, 1)], CONTEXT), (&[(1, 1)], 1)] {
            let refused = block_on(engine.decode(next, steps, &mut on_step));
            assert!(matches!(refused, Err(Error::Prompt { .. })), "{label}: {next:?}, {steps}: {refused:?}");
        }
        assert!(block_on(engine.decode(&[(0, 1)], 3, &mut on_step)).expect("decode").is_break());
        assert!(engine.position(0).is_err() && engine.position(2).is_ok(), "{label}");
    });
}

/// Keys and values of a slot may be a buffer's worth: each slot has its own then.
#[test]
fn slots_are_in_several_buffers_where_one_is_too_small() {
    for target in targets_in("several buffers", &[Mode::Floor]) {
        let ids = ids();
        let label = target.to_string();
        let mut small = engine(target.lend().expect("device").exec);
        let alone = [&ids[..9], &ids[30..55]].map(|prompt| fresh(&mut small, Sampling::default(), prompt, 12));
        let sizes = small.config().layers.iter().filter_map(|layer| match &layer.kind {
            BlockKind::Attention(dims) => Some(u64::from(dims.kv_heads) * u64::from(dims.head_dim) * 8),
            _ => None,
        });
        let each = sizes.max().expect("attention");
        let count = |engine: &Engine| {
            let [plan, _] = engine.record(2, false);
            plan.steps.iter().filter(|step| step.op.kernel().name == "attention_step").count()
        };
        let before = count(&small);
        // Two thirds of a binding for each slot.
        let context = (small.exec().caps().max_binding / each * 2 / 3) as u32;
        let mut large = with_context(small.into_exec(), context);
        assert_eq!(count(&large), 3 * before, "{label}");
        two_at_once(&label, &mut large, &alone);
        target.give_back(large.into_exec());
    }
}

/// Two sequences in slots 0 and 2, whose tokens are known.
fn two_at_once(label: &str, engine: &mut Engine, alone: &[Vec<u32>; 2]) {
    let ids = ids();
    let mut got = [vec![], vec![]];
    for (slot, prompt) in [(0, &ids[..9]), (2, &ids[30..55])] {
        engine.begin(slot, &Sampling::default()).expect("begin");
        let next = step(engine, slot, &prompt[..5]);
        assert_eq!(next, step_again(engine, slot, &prompt[..5]), "{label}");
        got[slot as usize / 2].push(step(engine, slot, &prompt[5..]));
    }
    while got[0].len() < 12 {
        // In turn: together, then one after the other.
        let last = [0, 1].map(|i| got[i][got[i].len() - 1]);
        if got[0].len() % 2 == 0 {
            let pieces =
                [0, 1].map(|i| Piece { slot: 2 * i as u32, tokens: std::slice::from_ref(&last[i]), pick: true });
            let picked = block_on(engine.step(&pieces)).expect("step");
            got.iter_mut().zip(picked).for_each(|(got, token)| got.push(token.expect("picked")));
        } else {
            for i in [1, 0] {
                got[i].push(step(engine, 2 * i as u32, &[last[i]]));
            }
        }
    }
    assert_eq!(*alone, got, "{label}");
}

/// The same step of a fresh sequence, in the slot that is free; the sequence of `slot` is left alone.
fn step_again(engine: &mut Engine, slot: u32, ids: &[u32]) -> u32 {
    assert_ne!(slot, 1);
    engine.begin(1, &Sampling::default()).expect("begin");
    step(engine, 1, ids)
}

#[test]
fn seeds_decide() {
    everywhere("seeds", |label, engine| {
        let ids = ids();
        let mut run = |seed| fresh(engine, Sampling { temperature: 1.0, seed, ..Default::default() }, &ids[..10], 20);
        let first = run(1);
        assert_eq!(first, run(1), "{label}");
        assert!((2..5).all(|seed| run(seed) != first), "{label}");
        assert_ne!(run(1 << 32 | 1), first, "{label}: the upper half counts");
    });
}

#[test]
fn wrong_prompts_are_refused() {
    everywhere("prompts", |label, engine| {
        let ids = ids();
        let want = fresh(engine, Sampling::default(), &ids[..10], 8);
        let long = vec![5; CONTEXT as usize + 1];
        let vocab = engine.config().vocab_size;
        engine.begin(0, &Sampling::default()).expect("begin");
        // Meta tokens and the mark of a picked token are no ids.
        for wrong in [&[][..], &long, &[1, vocab], &[vocab + 7], &[u32::MAX], &[u32::MAX - 1, 3]] {
            let refusals = [
                run(engine, 0, wrong, 5, |_, _| false).map(drop),
                block_on(engine.logits(0, wrong)).map(drop),
                block_on(engine.step(&[Piece { slot: 0, tokens: wrong, pick: true }])).map(drop),
            ];
            for refusal in refusals {
                assert!(matches!(refusal, Err(Error::Prompt { .. })), "{label} {wrong:?}: {refusal:?}");
            }
            assert_eq!(engine.position(0).expect("position"), 0, "{label}");
        }
        let piece = Piece { slot: 0, tokens: &ids[..3], pick: true };
        let twice = block_on(engine.step(&[piece, piece]));
        assert!(matches!(twice, Err(Error::Prompt { .. })), "{label}: {twice:?}");
        let nowhere = run(engine, 3, &ids[..3], 5, |_, _| false);
        assert!(matches!(nowhere, Err(Error::Parameter { name: "slot", .. })), "{label}: {nowhere:?}");
        let never = run(engine, 1, &ids[..3], 5, |_, _| false);
        assert!(matches!(never, Err(Error::Prompt { .. })), "{label}: {never:?}");
        let sampling = Sampling { temperature: -1.0, ..Default::default() };
        assert!(matches!(engine.begin(0, &sampling), Err(Error::Parameter { .. })), "{label}");
        assert_eq!(block_on(engine.step(&[])).expect("an empty step"), [], "{label}");
        // None of it left a trace.
        assert_eq!(want, tokens(engine, 0, &ids[..10], 8), "{label}");
        let ended = run(engine, 0, &ids[..3], 5, |_, _| false);
        assert!(matches!(ended, Err(Error::Prompt { .. })), "{label}: a run leaves no sequence");
    });
}

#[test]
fn runs_stop_where_they_are_told() {
    everywhere("stops", |label, engine| {
        let ids = ids();
        let all = fresh(engine, Sampling::default(), &ids[..40], 15);
        let mut go = |most, stop| {
            engine.begin(0, &Sampling::default()).expect("begin");
            run(engine, 0, &ids[..40], most, stop).expect("generate")
        };
        let chunks: Vec<Event> = [16, 32, 40].map(|done| Event::Prefill { done, total: 40 }).into();
        let events =
            |tokens: &[u32]| [&chunks[..], &tokens.iter().map(|&t| Event::Token(t)).collect::<Vec<_>>()].concat();
        assert_eq!(go(15, |_, _| false), events(&all), "{label}");
        for (n, stop) in [(1, (|n, _| n == 1) as fn(usize, Event) -> bool), (2, |n, _| n == 2), (3, |n, _| n == 3)] {
            assert_eq!(go(15, stop), chunks[..n], "{label}: stopped in prefill");
        }
        for (n, stop) in [(1, (|n, _| n == 4) as fn(usize, Event) -> bool), (2, |n, _| n == 5), (9, |n, _| n == 12)] {
            assert_eq!(go(15, stop), events(&all[..n]), "{label}: stopped after {n} tokens");
        }
        assert_eq!(go(0, |_, _| false), chunks, "{label}: no token wanted");
        assert_eq!(go(1, |_, _| false), events(&all[..1]), "{label}: one token wanted");
        assert_eq!(go(15, |_, _| false), events(&all), "{label}: after all that");
    });
}

#[test]
fn a_context_can_be_full() {
    everywhere("full contexts", |label, engine| {
        let ids = &ids()[..CONTEXT as usize];
        // The token after the last position can still be chosen.
        let full = fresh(engine, Sampling::default(), ids, 100);
        assert_eq!(full.len(), 1, "{label}");
        let half = fresh(engine, Sampling::default(), &ids[..50], u32::MAX);
        assert_eq!(half.len(), 11, "{label}");
        engine.begin(1, &Sampling::default()).expect("begin");
        let logits = block_on(engine.logits(1, ids)).expect("logits");
        let vocab = engine.config().vocab_size as usize;
        let last = &logits[logits.len() - vocab..];
        let best = (0..vocab).max_by(|&a, &b| last[a].total_cmp(&last[b])).expect("a token");
        assert_eq!(full[0], best as u32, "{label}");
        assert_eq!(engine.position(1).expect("position"), CONTEXT, "{label}");
        let more = block_on(engine.step(&[Piece { slot: 1, tokens: &[1], pick: true }]));
        assert!(matches!(more, Err(Error::Prompt { .. })), "{label}: {more:?}");
        // A full sequence can be kept and put back.
        let snapshot = block_on(engine.snapshot(1)).expect("snapshot");
        engine.restore(2, &snapshot).expect("restore");
        assert_eq!(engine.position(2).expect("position"), CONTEXT, "{label}");
    });
}

/// A text that grows is read from where it is new, and the answer is that of a fresh sequence.
#[test]
fn a_transcript_reads_only_what_is_new() {
    everywhere("transcripts", |label, engine| {
        let ids = ids();
        let sampling = Sampling { repetition_penalty: 1.2, ..Default::default() };
        // Tokens of the answer, and how much of the text was read after each step.
        let run = |engine: &mut Engine, transcript: &mut Transcript, ids: &[u32], stop: bool| {
            let (mut answer, mut read) = (vec![], vec![]);
            let mut on_event = |event| {
                match event {
                    Event::Prefill { done, .. } => read.push(done),
                    Event::Token(token) => answer.push(token),
                }
                if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            block_on(engine.answer(0, transcript, &sampling, ids, 5, &mut on_event)).expect("answer");
            (answer, read)
        };
        let mut transcript = Transcript::default();
        let turn = |engine: &mut Engine, transcript: &mut Transcript, ids: &[u32]| {
            let (answer, read) = run(engine, transcript, ids, false);
            assert_eq!(answer, fresh(engine, sampling, ids, 5), "{label}: {read:?} of {} read", ids.len());
            transcript.set_read([ids, &answer].concat());
            read
        };
        assert_eq!(turn(engine, &mut transcript, &ids[..20]), [16, 20], "{label}: nothing is known");
        // Prompt and answer are known now, but no snapshot is there: they are read once more, and kept.
        let second = [transcript.read(), &ids[25..30]].concat();
        assert_eq!(turn(engine, &mut transcript, &second), [16, 25, 30], "{label}");
        // From the snapshot at 25 on: the rest of the last turn, then what is new.
        let third = [transcript.read(), &ids[40..43]].concat();
        assert_eq!(turn(engine, &mut transcript, &third), [10, 13], "{label}");
        // The same again reads its last tokens alone.
        assert_eq!(turn(engine, &mut transcript, &third), [2, 3], "{label}");
        assert_eq!(turn(engine, &mut transcript, &third), [1], "{label}");
        // Another text has nothing of the old one.
        assert_eq!(turn(engine, &mut transcript, &ids[50..60]), [10], "{label}");
        transcript.set_read(third.clone());
        assert_eq!(turn(engine, &mut transcript, &third), [16, 32, 37, 38], "{label}: no snapshot is left");
        transcript.clear(engine);
        assert_eq!(turn(engine, &mut transcript, &third), [16, 32, 38], "{label}: forgotten");
        transcript.set_read(third.clone());
        assert_eq!(run(engine, &mut transcript, &third, true), (vec![], vec![16]), "{label}: stopped");
    });
}
